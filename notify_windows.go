package cluster

// What service managers of Unix offer, and none has here.

// notifier: there is no sd_notify.
type notifier struct{}

func (m *master) notifyBegin() {}
func (m *master) notifyEnd()   {}

func (m *master) notifyFlush(<-chan struct{}) {}

func (m *master) notifyUp()                   {}
func (m *master) notifyReloading()            {}
func (m *master) notifyReloaded(ReloadResult) {}

// activatedFDs: there is no socket activation.
func activatedFDs() []int { return nil }
