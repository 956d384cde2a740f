'use strict';
// A worker of socket.io, as the module @socket.io/sticky has it. Nothing in it
// knows that the primary is written in Go.

const cluster = require('cluster');
const http = require('http');
const { Server } = require('socket.io');
const { setupWorker } = require('@socket.io/sticky');

const io = new Server(http.createServer());
setupWorker(io);
io.on('connection', (socket) => {
  socket.on('who', (answer) => answer(cluster.worker.id));
});
// Node's disconnect knows nothing of the connections that were sent here.
cluster.worker.on('disconnect', () => io.close());
process.on('SIGINT', () => {}); // Ctrl-C is the master's business
