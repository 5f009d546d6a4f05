package streams

var ParseJournal = func(data []byte, life string) (streams, circuits, ours int) {
	r := parseJournal(data, life)
	return len(r.streams), len(r.circuits), len(r.ours)
}

// Sizes counts what is remembered.
func (a *Attacher) Sizes() (streams, circuits, bad, journal int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.journal.now
	return len(a.streams), len(a.circuits), len(a.bad), len(n.streams) + len(n.circuits) + len(n.ours)
}
