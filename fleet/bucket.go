package fleet

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// bucket is the fleet's bucket in JetStream's key-value store, which is made when it
// is needed first. Leases and all KVs are in it. The lock is that of the handle, and is
// held for no question to the server: one that it does not answer stops only its own call.
type bucket struct {
	me     *self
	conn   *connection
	mu     sync.Mutex
	stream jetstream.Stream // nil until it is known to exist
}

// record is what is at a key. The key of a record that is not there may have a
// revision all the same: that of its deletion.
type record struct {
	there  bool
	val    []byte
	rev    uint64
	at     time.Time // by the server's clock
	header nats.Header
}

// errMoved says that the key has another revision than was expected.
var errMoved = errors.New("the revision is another one")

const (
	// anyRevision is expected by who does not mind.
	anyRevision = ^uint64(0)
	// markerTime is how long the server notes that a key is gone.
	markerTime = time.Minute
)

func (b *bucket) name() string              { return "cluster-" + b.me.fleet }
func (b *bucket) subject(key string) string { return "$KV." + b.name() + "." + key }

// call does one thing with the stream, and says why it could not be done.
func (b *bucket) call(ctx context.Context, do func(context.Context, jetstream.Stream) error) error {
	silent := fmt.Errorf("JetStream, which keeps leases and values, does not answer within %v: %w", b.me.set.call, context.DeadlineExceeded)
	ctx, cancel := context.WithTimeoutCause(ctx, b.me.set.call, silent)
	defer cancel()
	ctx, end := b.conn.denials.wait(ctx, storeSubjects)
	defer end()
	s, err := b.open(ctx)
	if err == nil {
		err = do(ctx, s)
	}
	if err == nil || errors.Is(err, errMoved) || errors.Is(err, jetstream.ErrMsgNotFound) {
		return err
	}
	b.set(nil) // it may have gone
	err = wrap(cause(ctx, err))
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
		err = fmt.Errorf("JetStream, which keeps leases and values, does not answer: %w", err)
	}
	return err
}

// open returns the stream of the bucket, which it makes if there is none. Calls that
// come before it is known each ask for it: none waits for another one's answer.
func (b *bucket) open(ctx context.Context) (jetstream.Stream, error) {
	b.mu.Lock()
	s := b.stream
	b.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := b.conn.js.Stream(ctx, "KV_"+b.name())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if err = b.create(ctx); err == nil || errors.Is(err, jetstream.ErrBucketExists) {
			s, err = b.conn.js.Stream(ctx, "KV_"+b.name())
		}
	}
	if err == nil && !s.CachedInfo().Config.AllowMsgTTL {
		err = fmt.Errorf("the bucket %s allows no TTL of a message: it was not made by this package, and has to be deleted", b.name())
	}
	if err != nil {
		return nil, err
	}
	b.set(s)
	return s, nil
}

// set notes the stream, or with nil that it is to be asked for again.
func (b *bucket) set(s jetstream.Stream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stream = s
}

// create makes the bucket: on three servers where there is a cluster of them.
func (b *bucket) create(ctx context.Context) error {
	c := jetstream.KeyValueConfig{Bucket: b.name(), Description: "of fleet " + b.me.fleet, LimitMarkerTTL: markerTime, Replicas: 1}
	if b.me.embedded {
		c.Storage = jetstream.MemoryStorage
	}
	if b.conn.nc.ConnectedClusterName() != "" {
		c.Replicas = 3
		_, err := b.conn.js.CreateKeyValue(ctx, c)
		if err == nil || errors.Is(err, jetstream.ErrBucketExists) {
			return err
		}
		c.Replicas = 1 // the cluster has fewer servers
	}
	_, err := b.conn.js.CreateKeyValue(ctx, c)
	return err
}

// made is when the bucket was made, by the server's clock, and what that shows now.
func (b *bucket) made(ctx context.Context) (made, now time.Time, err error) {
	err = b.call(ctx, func(ctx context.Context, s jetstream.Stream) error {
		info, err := s.Info(ctx)
		if err == nil {
			made, now = info.Created, info.TimeStamp
		}
		return err
	})
	return made, now, err
}

// get reads a key.
func (b *bucket) get(ctx context.Context, key string) (r record, err error) {
	err = b.call(ctx, func(ctx context.Context, s jetstream.Stream) error {
		m, err := s.GetLastMsgForSubject(ctx, b.subject(key))
		if err == nil {
			gone := m.Header.Get("KV-Operation") != "" || m.Header.Get("Nats-Marker-Reason") != ""
			r = record{!gone, m.Data, m.Sequence, m.Time, m.Header}
		}
		return err
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		err = nil
	}
	return r, err
}

// put writes a key that has the revision, for so long: 0 is without an end.
func (b *bucket) put(ctx context.Context, key string, val []byte, rev uint64, ttl time.Duration, header nats.Header) (now uint64, err error) {
	m := nats.NewMsg(b.subject(key))
	m.Data = val
	for k, v := range header {
		m.Header[k] = v
	}
	if rev != anyRevision {
		m.Header.Set("Nats-Expected-Last-Subject-Sequence", strconv.FormatUint(rev, 10))
	}
	if ttl > 0 {
		m.Header.Set("Nats-TTL", strconv.FormatInt(int64((ttl+time.Second-1)/time.Second), 10))
	}
	err = b.call(ctx, func(ctx context.Context, _ jetstream.Stream) error {
		ack, err := b.conn.js.PublishMsg(ctx, m)
		switch {
		case err == nil:
			now = ack.Sequence
		case moved(err):
			return errMoved
		}
		return err
	})
	return now, err
}

// moved reports whether the server has refused a write since the key has another revision:
// with one code where the bucket has one copy, with another where it has several.
func moved(err error) bool {
	refused, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// remove deletes a key, and what notes that goes by itself.
func (b *bucket) remove(ctx context.Context, key string) error {
	_, err := b.put(ctx, key, nil, anyRevision, markerTime, nats.Header{"KV-Operation": {"PURGE"}, "Nats-Rollup": {"sub"}})
	return err
}
