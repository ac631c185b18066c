"""screen-flow's reference backend: upload CVs, process them, report each step over a WebSocket."""
