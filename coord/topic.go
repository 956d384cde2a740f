package coord

import "encoding/json"

// Publish sends v, encoded as JSON, to every subscriber of the topic in every
// process, those of this one included. It never waits. A message arrives at most
// once, and all processes get the messages of a topic in one order.
//
// The error wraps cluster.ErrBacklog if too much waits for the master, [ErrTooLarge]
// if v is more than Options.MaxMessage, or says why v has no JSON form. That nobody
// hears the topic is no error.
func Publish(topic string, v any) error { return here.Publish(topic, v) }

// Subscribe calls fn for each message of the topic that is published from now on,
// one after another, on a goroutine of this subscriber's own. It waits until the
// master knows, for at most five seconds. After stop fn is not called again; a call
// under way goes on.
//
// What waits for a slow subscriber is bounded (16 MiB, each message counting 256
// bytes more), and so is what waits for a worker that does not read (half of
// Options.MaxQueue). Beyond that messages are lost: cluster.Stats counts them, and
// the first of each burst is reported through cluster.OnError, here or in the
// master. So are messages that cannot be decoded into T, and what prevents the
// subscription: a name that is too long, a process that hears 4,096 topics, a node
// primary.
func Subscribe[T any](topic string, fn func(v T)) (stop func()) {
	return here.Subscribe(topic, func(msg []byte) error {
		var v T
		if err := json.Unmarshal(msg, &v); err != nil {
			return err
		}
		fn(v)
		return nil
	})
}
