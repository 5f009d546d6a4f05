package store

// Waiting is the number of Writes in the queue, so that tests can wait for a
// known state instead of for some time.
func (db *DB) Waiting() int {
	db.turn.mu.Lock()
	defer db.turn.mu.Unlock()
	return db.turn.queue.Len()
}

// Connections is the number of idle reader connections.
func (db *DB) Connections() int {
	db.mu.Lock()
	defer db.mu.Unlock()
	return len(db.idle)
}
