'use strict';
// A worker that does what the test tells it in messages.

const cluster = require('cluster');
const http = require('http');
const tools = require('./tools');

tools.extend({
  // web is a server that tells who answers; /slow reports that it has begun
  // and ends after release().
  web: () => http.createServer((request, response) => {
    const answer = () => response.end(`node ${cluster.worker.id}`);
    if (request.url !== '/slow') return answer();
    slow.push(answer);
    process.send({ event: 'slow' });
  }),
  release: () => slow.splice(0).forEach((answer) => answer()),
});
const slow = [];

process.on('message', async (message) => {
  if (!message || !message.code) return;
  const answer = await tools.run(message);
  if (process.connected) process.send(answer);
});
