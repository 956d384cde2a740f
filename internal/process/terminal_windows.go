package process

// Terminal is nothing here: a console tells of its end in another way.
type Terminal struct{}

// FindTerminal returns nil.
func FindTerminal() *Terminal { return nil }

// Close does nothing.
func (*Terminal) Close() {}

// HungUp reports that it is not.
func (*Terminal) HungUp() bool { return false }

// HasTerminal reports that there is none of which signals come.
func HasTerminal() bool { return false }
