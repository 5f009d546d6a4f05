package sessions

import "sync"

// locks is a read-write mutex for every key that is in use.
type locks struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	sync.RWMutex
	users int
}

func (l *locks) get(key string) *keyLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = map[string]*keyLock{}
	}
	k := l.held[key]
	if k == nil {
		k = &keyLock{}
		l.held[key] = k
	}
	k.users++
	return k
}

func (l *locks) put(key string, k *keyLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(l.held, key)
	}
}

// lock takes key exclusively and gives the function that lets it go.
func (l *locks) lock(key string) func() {
	k := l.get(key)
	k.Lock()
	return func() { k.Unlock(); l.put(key, k) }
}

// share takes key together with others that share it.
func (l *locks) share(key string) func() {
	k := l.get(key)
	k.RLock()
	return func() { k.RUnlock(); l.put(key, k) }
}
