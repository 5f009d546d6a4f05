//go:build linux

package supervise

import (
	"math/rand/v2"
	"time"
)

// Timing holds what is not a matter of one service. Zero means the default.
type Timing struct {
	// FirstPing is the pause between the first pings of a new process; 20 ms.
	FirstPing time.Duration
	// Backoff is the pause before the second restart in a row (the first has
	// none); it doubles with each further one up to BackoffMax. 100 ms, 30 s.
	Backoff, BackoffMax time.Duration
	// Forgive is how long a service must have been ready for one earlier
	// death to be forgotten; 1 s.
	Forgive time.Duration
	// FailAfter is how many deaths not forgotten make a service failed; 10.
	FailAfter int
	// FailedRetry is the pause between the attempts to start a failed
	// service; 60 s.
	FailedRetry time.Duration
	// Shutdown bounds the stop of everything; then all that is left is
	// killed. 30 s.
	Shutdown time.Duration
}

func (t Timing) withDefaults() Timing {
	setDefault(&t.FirstPing, 20*time.Millisecond)
	setDefault(&t.Backoff, 100*time.Millisecond)
	setDefault(&t.BackoffMax, 30*time.Second)
	setDefault(&t.Forgive, time.Second)
	setDefault(&t.FailAfter, 10)
	setDefault(&t.FailedRetry, time.Minute)
	setDefault(&t.Shutdown, 30*time.Second)
	return t
}

// streak counts the deaths of one service that are not forgotten.
type streak int

// died counts one more death, after a life in which the service was ready for
// so long, and gives the pause before the next start. A service that could not
// even be started has no first restart without a pause.
func (s *streak) died(t Timing, ready time.Duration, couldStart bool) (pause time.Duration, failed bool) {
	*s = max(0, *s-streak(min(ready/t.Forgive, time.Duration(t.FailAfter))))
	before := int(*s)
	*s = min(*s+1, streak(t.FailAfter))
	if before == 0 && couldStart && t.FailAfter > 1 {
		return 0, false
	}
	if int(*s) >= t.FailAfter {
		return jitter(t.FailedRetry), true
	}
	pause = t.Backoff
	for i := 1; i < before && pause < t.BackoffMax; i++ {
		pause *= 2
	}
	return jitter(min(pause, t.BackoffMax)), false
}

// jitter spreads a pause by a fifth either way, so that services which died
// together do not all come back together.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}
