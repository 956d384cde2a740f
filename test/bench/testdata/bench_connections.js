// Greets connections with a byte, in two workers to which the primary hands
// them in turn. Prints the port.
const cluster = require('cluster');

if (cluster.isMaster) {
  cluster.schedulingPolicy = cluster.SCHED_RR;
  let listening = 0;
  cluster.on('listening', (worker, address) => {
    if (++listening === 2) console.log(address.port);
  });
  cluster.fork();
  cluster.fork();
} else {
  require('net').createServer((c) => {
    c.on('error', () => {}); // the client resets it
    c.write('!');
  }).listen(0, '127.0.0.1');
}
