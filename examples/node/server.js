'use strict';
// An ordinary worker of node's cluster: that its primary is a Go program is
// nothing that it has to know.

const cluster = require('cluster');
const http = require('http');

const server = http.createServer((request, response) => {
  process.send({ runtime: 'node', url: request.url });
  response.end(`hello from node, worker ${cluster.worker.id}\n`);
});

const [, host, port] = /^(.*):(\d+)$/.exec(process.argv[2]);
server.listen({ host: host || undefined, port: Number(port) });

// Ctrl-C in a terminal reaches every process. What follows from it is the
// master's to say, or requests under way would be cut off.
process.on('SIGINT', () => {});
