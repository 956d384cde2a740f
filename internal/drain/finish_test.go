package drain

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a look finds, in the tests of pace.
var (
	nothing  = census{}
	fromOld  = census{open: 2, old: 1}  // a request from before the drain is in flight
	waiting  = census{open: 2, idle: 2} // clients that may send again
	answered = census{open: 2}          // requests that are answered with Connection: close
)

// TestPace: when the servers are shut down, by what the looks have found. A
// minute is half of the time.
func TestPace(t *testing.T) {
	const minute = time.Minute
	type found struct {
		census
		span time.Duration
	}
	for name, test := range map[string]struct {
		looks []found
		want  time.Duration // the first time at which next says so
	}{
		"nothing is open":                 {[]found{{nothing, minute}}, 0},
		"the last one is closed":          {[]found{{waiting, 500 * time.Millisecond}, {nothing, minute}}, 500 * time.Millisecond},
		"all clients are told":            {[]found{{answered, minute}}, lameDuck},
		"idle ones are cut":               {[]found{{waiting, lameDuck}, {answered, minute}}, lameDuck},
		"idle ones that go on":            {[]found{{waiting, minute}}, 3 * lameDuck},
		"an old request ends":             {[]found{{fromOld, 10 * time.Second}, {answered, minute}}, 10*time.Second + lameDuck},
		"an old one ends, the rest waits": {[]found{{fromOld, 10 * time.Second}, {waiting, minute}}, 10*time.Second + 3*lameDuck},
		"an old request does not end":     {[]found{{fromOld, 2 * minute}}, minute},
		"old ones again and again":        {[]found{{fromOld, time.Second}, {answered, 500 * time.Millisecond}, {fromOld, time.Second}, {answered, minute}}, 2500*time.Millisecond + lameDuck},
	} {
		t.Run(name, func(t *testing.T) {
			p := pace{half: minute}
			var at time.Duration
			for _, f := range test.looks {
				for end := at + f.span; at < end; at += lamePoll {
					var shutDown bool
					step := lamePoll
					if at == 0 {
						step = 0
					}
					if p, shutDown = p.next(f.census, step); shutDown {
						require.InDelta(t, test.want, at, float64(lamePoll))
						return
					}
				}
			}
			t.Fatal("the servers are never shut down")
		})
	}
}

// TestPaceStopped: the time in which the process was stopped is no time in which a
// client could have been told.
func TestPaceStopped(t *testing.T) {
	p, shutDown := pace{half: time.Minute}.next(answered, 0)
	require.False(t, shutDown)
	p, shutDown = p.next(answered, lameDuck-lamePoll)
	require.False(t, shutDown)
	p, shutDown = p.next(answered, time.Hour)
	require.False(t, shutDown, "an hour counts as one look, and the quiet begins again")
	for range int(lameDuck/lamePoll) - 1 {
		p, shutDown = p.next(answered, lamePoll)
		require.False(t, shutDown)
	}
	_, shutDown = p.next(answered, lamePoll)
	require.True(t, shutDown)
}
