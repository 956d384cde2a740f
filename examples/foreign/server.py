#!/usr/bin/env python3
"""A service that takes its socket as systemd passes it. It knows nothing of cluster."""
import http.server, os, signal, socket, sys, threading, time

class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello from pid %d\n" % os.getpid()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

def stop(*_):
    threading.Thread(target=server.shutdown).start()  # it waits for the loop, which waits for us

if os.environ.get("LISTEN_PID") != str(os.getpid()):
    sys.exit("no socket: start it as a Foreign worker of package cluster, or as a systemd service with a socket")
server = http.server.ThreadingHTTPServer(("", 0), Hello, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=3)
server.daemon_threads = False  # so that server_close waits for what they answer
signal.signal(signal.SIGTERM, stop)
print("serving", flush=True)
server.serve_forever(poll_interval=0.1)
server.server_close()
