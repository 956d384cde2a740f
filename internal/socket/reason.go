package socket

// Reason is an error of opening a socket: an error number, and a text that says what the
// number does not.
type Reason struct {
	Cause error
	Text  string
}

// Error returns both.
func (r *Reason) Error() string { return r.Cause.Error() + " (" + r.Text + ")" }

// Unwrap returns the cause.
func (r *Reason) Unwrap() error { return r.Cause }
