package tickets

import (
	"crypto/tls"
	"encoding/json"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/stretchr/testify/require"
)

// TestRotation: a new key comes each day. It opens tickets for a day, makes them for
// the next, and opens them for one more.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *Maker
		days := make(chan Keys, 10)
		m = New(func() { days <- m.Keys() })
		defer m.timer.Stop()
		began := time.Now()
		last := m.Keys()
		require.Len(t, last, 3)
		born := map[[32]byte]int{last[1]: 0}
		for day := 1; day <= 5; day++ {
			now := <-days
			require.Equal(t, time.Duration(day)*Period, time.Since(began))
			require.Len(t, now, 3)
			require.Equal(t, last[1], now[0], "what opened tickets makes them")
			require.Equal(t, last[0], now[2], "what made them opens them still")
			require.NotContains(t, last, now[1], "the new one only opens them")
			require.NotContains(t, born, now[1])
			born[now[1]] = day
			require.Equal(t, day-1, born[now[0]], "it has opened them for a day before")
			last = now
		}
	})
}

// TestDecode: what is encoded comes back, and what is no key is an error that does not
// quote one.
func TestDecode(t *testing.T) {
	keys := Keys{random(), random(), random()}
	got, err := Decode(keys.Encode())
	require.NoError(t, err)
	require.Equal(t, keys, got)
	many, err := json.Marshal(make([][]byte, maxKeys+1))
	require.NoError(t, err)
	for _, text := range []string{"", "{}", "[]", "null", `["c2hvcnQ="]`, `[7]`, `["secret?"]`, string(many)} {
		_, err := Decode([]byte(text))
		require.Error(t, err, text)
		require.NotContains(t, err.Error(), "secret")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Keys{random()}.Encode())
	f.Add([]byte(`[""]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(keys.Encode())
		require.NoError(t, err)
		require.Equal(t, keys, again)
	})
}

// TestHolder: configs that come before the keys get them as well as those that come
// after, and nobody is kept.
func TestHolder(t *testing.T) {
	var h Holder
	early, late := new(tls.Config), new(tls.Config)
	h.Share(early)
	keys := Keys{random(), random(), random()}
	h.Set(keys)
	h.Share(late)
	for range 100 {
		h.Share(new(tls.Config))
	}
	require.Eventually(t, func() bool {
		runtime.GC()
		h.Set(keys)
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.configs) == 2
	}, 30*time.Second, time.Millisecond)
	require.True(t, roomtest.Resumes(t, early, late))
	h.Set(Keys{random()})
	require.True(t, roomtest.Resumes(t, early, late))
	runtime.KeepAlive(early)
	runtime.KeepAlive(late)
}
