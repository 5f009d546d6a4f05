package agent

import (
	"math/rand/v2"
	"time"

	"vpnd/pkg/fault"
)

// The waits between tries: doubling, spread by half either way so that the
// clients of a server that comes back do not come all at once.
const (
	firstWait   = time.Second
	longestWait = time.Minute
)

func backoff(tries int) time.Duration {
	d := longestWait
	if tries < 6 {
		d = firstWait << tries
	}
	return jitter(d, 0.5)
}

// jitter spreads d by the given part of it either way.
func jitter(d time.Duration, part float64) time.Duration {
	return time.Duration(float64(d) * (1 + part*(2*rand.Float64()-1)))
}

// waitFor is the wait after the tries-th failure, at least what the server asked for.
func waitFor(err error, tries int) time.Duration {
	return max(backoff(tries), fault.From(err).RetryAfter)
}
