"""An emulated Cloudflare: the part of its v4 API that the roles call, and an edge."""
