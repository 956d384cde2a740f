package coord

import "encoding/json"

// Publish sends v, encoded as JSON, to every subscriber of the topic in every process, this
// one included. It never waits. A message arrives at most once, and all processes get the
// messages of a topic in the same order.
//
// The error wraps cluster.ErrBacklog if too much waits for the master, and [ErrTooLarge] if
// v is longer than Options.MaxMessage. Or it says why v has no JSON form. It is no error if
// the topic has no subscriber.
func Publish(topic string, v any) error { return here.Publish(topic, v) }

// Subscribe calls fn for each message of the topic that is published from now on, one after
// another, on a goroutine of the subscriber's own. Subscribe returns when the master knows
// of it, or after five seconds. After stop fn is not called again; a call under way goes on.
//
// Messages wait for a slow subscriber, up to 16 MiB, where each counts 256 bytes more. They
// wait for a worker that does not read, up to half of Options.MaxQueue. Messages beyond that
// are lost: cluster.Stats counts them, and the first of each burst is reported through
// cluster.OnError, here or in the master.
//
// Other errors are reported through cluster.OnError too: a message cannot be decoded into T,
// the name is too long, the process has subscribed to 4,096 topics, or the master is node's.
func Subscribe[T any](topic string, fn func(v T)) (stop func()) {
	notNil("Subscribe", fn == nil)
	return here.Subscribe(topic, func(msg []byte) error {
		var v T
		if err := json.Unmarshal(msg, &v); err != nil {
			return err
		}
		fn(v)
		return nil
	})
}
