package auth

import (
	"sync"
	"time"

	"vpnd/pkg/fault"
)

// maxNonces bounds the memory of nonces: 64 bytes each. The guard lets far
// fewer sign-ins through in the time that a nonce is kept.
const maxNonces = 1 << 16

// nonces are those of every sign-in that may still be replayed.
type nonces struct {
	now func() time.Time

	mu    sync.Mutex
	until map[nonce]time.Time // when its sign-in is too old anyway
}

// claim is true for whoever comes first with n.
func (s *nonces) claim(n nonce, until time.Time) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, seen := s.until[n]; seen {
		return false, nil
	}
	if len(s.until) >= maxNonces {
		s.dropOld()
		if len(s.until) >= maxNonces {
			return false, fault.New(fault.Throttled, "too many sign-ins at once").WithReason("throttled").WithRetryAfter(time.Minute)
		}
	}
	s.until[n] = until
	return true, nil
}

// sweep forgets what is too old to be replayed.
func (s *nonces) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropOld()
}

func (s *nonces) dropOld() {
	now := s.now()
	for n, until := range s.until {
		if until.Before(now) {
			delete(s.until, n)
		}
	}
}
