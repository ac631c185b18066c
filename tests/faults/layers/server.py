from tests.faults.kit import Fault, shell

FAULTS = [
    Fault(
        "disk_full", "/var/log/nginx",
        inject=lambda site: site.sh(
            "mount -t tmpfs -o size=1m tmpfs /var/log/nginx; cat /dev/zero >/var/log/nginx/full", check=False
        ),
        revert=shell("umount -l /var/log/nginx && systemctl reload nginx"),
        touches={"disk", "nginx"},
    ),
    Fault(
        "out_of_files", "nginx is out of files",
        inject=shell(
            "for p in $(pgrep -f 'nginx: worker process$'); do n=$(ls /proc/$p/fd | wc -l); "
            "runuser -u www-data -- prlimit --pid $p --nofile=$n: ; done"
        ),
        # A worker that is out of file descriptors may miss the reload and keep running.
        revert=shell("systemctl restart nginx; sleep 0.3"),
        touches={"files", "nginx", "edge path"},
    ),
    Fault(
        "clock_skew", "ahead of",
        inject=shell(
            "printf '+1h' >/etc/faketimerc; ls /usr/lib/*/faketime/libfaketime.so.1 >/etc/ld.so.preload"
        ),
        revert=shell("rm -f /etc/ld.so.preload /etc/faketimerc"),
        touches={"clock", "certificate"},
    ),
]  # fmt: skip
