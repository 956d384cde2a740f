package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/go-cluster/cluster/internal/errs"
)

// ErrSuperseded says that nothing was forked, since something else was decided for the slot
// meanwhile. It is not reported: the later decision takes care of the slot.
var ErrSuperseded = fmt.Errorf("decided otherwise meanwhile: %w", errs.Closed)

// callError names the call that failed.
func callError(call string, err error) error {
	return fmt.Errorf("cluster: %s: %w", call, err)
}

// Failure is an error that is part of the state. In JSON it has its text and the names of
// the known errors that it wraps, so that errors.Is finds them afterwards too.
type Failure struct{ Err error }

// known has the errors that a caller may test for, by their names in JSON.
var known = map[string]error{
	"closed":        errs.Closed,
	"boot loop":     errs.BootLoop,
	"no workers":    errs.NoWorkers,
	"stalled":       errs.Stalled,
	"not supported": errs.NotSupported,
	"unsupported":   errors.ErrUnsupported,
	"not exist":     fs.ErrNotExist,
	"permission":    fs.ErrPermission,
	"deadline":      context.DeadlineExceeded,
	"canceled":      context.Canceled,
}

// restoredError is an error that was read from JSON.
type restoredError struct {
	Text  string   `json:"text"`
	Wraps []string `json:"wraps,omitempty"`
}

func (e *restoredError) Error() string { return e.Text }

func (e *restoredError) Unwrap() (wrapped []error) {
	for _, name := range e.Wraps {
		if err := known[name]; err != nil {
			wrapped = append(wrapped, err)
		}
	}
	return wrapped
}

// MarshalJSON encodes the error's text and the names of the known errors that it wraps.
func (f Failure) MarshalJSON() ([]byte, error) {
	if f.Err == nil {
		return []byte("null"), nil
	}
	r := restoredError{Text: f.Err.Error()}
	for name, err := range known {
		if errors.Is(f.Err, err) {
			r.Wraps = append(r.Wraps, name)
		}
	}
	slices.Sort(r.Wraps)
	return json.Marshal(r)
}

// UnmarshalJSON reads what MarshalJSON has written.
func (f *Failure) UnmarshalJSON(b []byte) error {
	var r *restoredError
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	f.Err = nil
	if r != nil {
		f.Err = r
	}
	return nil
}
