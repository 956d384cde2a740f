package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// keepHistory has the server keep each revision of each lease from now on, where it keeps
// only the last one otherwise. It makes the bucket.
func keepHistory(t *testing.T, f *Fleet) {
	t.Helper()
	var err error
	eventually(t, func() bool {
		err = f.store.call(long(t), func(ctx context.Context, s jetstream.Stream) error {
			c := s.CachedInfo().Config
			c.MaxMsgsPerSubject = -1
			_, err := f.conn.js.UpdateStream(ctx, c)
			return err
		})
		return err == nil
	}, "the bucket")
}

// tenure is the time of one holder in a lease's history.
type tenure struct {
	claim
	fence      uint64
	from, last time.Time // its first and last revision, by the server's clock
	given      bool      // it has given the lease back
}

// leaseHistory is who has had a lease, as the revisions that the server has taken tell.
func leaseHistory(t *testing.T, f *Fleet, key string) (all []tenure) {
	t.Helper()
	ctx := long(t)
	for seq := uint64(1); ; seq++ {
		var m *jetstream.RawStreamMsg
		err := f.store.call(ctx, func(ctx context.Context, s jetstream.Stream) (err error) {
			m, err = s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(f.store.subject(key)))
			return err
		})
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return all
		}
		require.NoError(t, err)
		seq = m.Sequence
		var c claim
		require.NoError(t, json.Unmarshal(m.Data, &c))
		if c.Holder == "" {
			require.NotEmpty(t, all, "revision %d: it is given back by nobody", seq)
		}
		switch now := len(all) - 1; {
		case c.Holder == "":
			require.False(t, all[now].given, "revision %d: it is given back twice", seq)
			all[now].last, all[now].given = m.Time, true
		case now >= 0 && all[now].Holder == c.Holder:
			require.False(t, all[now].given, "revision %d: it is renewed by who has given it back", seq)
			all[now].last = m.Time
		default:
			all = append(all, tenure{claim: c, fence: seq, from: m.Time, last: m.Time})
		}
	}
}

// checkHistory looks for two who had a lease at one moment: each has it from its first
// revision on, until it gives it back, or for hold after its last one. Who comes from the
// same member comes after the death of the one before, which package coord has seen.
func checkHistory(t *testing.T, all []tenure, hold time.Duration) {
	t.Helper()
	had := make(map[string]bool)
	for i, n := range all {
		require.False(t, had[n.Holder], "%s has had it before: %+v", n.Holder, all)
		had[n.Holder] = true
		if i == 0 {
			continue
		}
		before := all[i-1]
		end := before.last
		if !before.given && before.Home != n.Home {
			end = end.Add(hold)
		}
		require.False(t, n.from.Before(end), "%s of %q has the lease at %v, and %s of %q until %v",
			n.Holder, n.Node, n.from, before.Holder, before.Node, end)
	}
	t.Logf("%d have had the lease, one after another", len(all))
}
