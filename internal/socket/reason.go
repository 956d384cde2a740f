package socket

// Reason is why there is no socket: an error number, and what it does not say.
type Reason struct {
	Cause error
	Text  string
}

// Error is both.
func (r *Reason) Error() string { return r.Cause.Error() + " (" + r.Text + ")" }

// Unwrap is the cause.
func (r *Reason) Unwrap() error { return r.Cause }
