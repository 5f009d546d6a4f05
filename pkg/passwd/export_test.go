package passwd

// OnIdle replaces giving memory back, so that a test can count it.
func (w *Workers) OnIdle(f func()) { w.free = f }

// Slots is the number of workers.
func (w *Workers) Slots() int { return cap(w.slots) }

// Occupy takes a worker as a long computation would.
func (w *Workers) Occupy() {
	w.slots <- struct{}{}
	w.mu.Lock()
	w.start()
	w.mu.Unlock()
}

// Vacate ends an Occupy after the usual time.
func (w *Workers) Vacate() {
	w.mu.Lock()
	w.running--
	w.restSoon()
	w.mu.Unlock()
	<-w.slots
}

// Reparse reads a hash and writes it again.
func Reparse(encoded string) (string, error) {
	h, err := parse(encoded)
	return h.String(), err
}

// Running is the number of computations under way.
func (w *Workers) Running() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running
}
