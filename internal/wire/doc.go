// Package wire is what the two sides of a channel say to each other: lines of
// JSON, as node's cluster module speaks them. It makes no system call, starts no
// goroutine and has no lock.
//
// A [Framer] cuts the stream of a channel into lines. [Read] checks one line and
// finds the few members that decide what it is:
//
//   - a message of the application, which is everything without a reserved "cmd";
//   - node's own words ([Message]: NODE_CLUSTER, and NODE_HANDLE around it);
//   - what this package says beyond node's protocol ([Extra]: NODE_GO_CLUSTER). A
//     peer is only ever sent an Extra after it has said that it understands them.
//
// In the other direction [EncodeUser] turns a value of the application into a line. It
// refuses one that would pass for the protocol's own. Message.Line and the Append functions
// make the protocol's lines.
//
// Nothing here copies or keeps what it is given: a Line points into the bytes that it was
// read from. The one variable numbers the messages (NextSeq). Everything that reads is
// tested by fuzzing against encoding/json, or against a reference that is simple and slow.
package wire
