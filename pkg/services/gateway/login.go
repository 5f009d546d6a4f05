package gateway

import (
	"context"
	"sync"
	"time"

	"vpnd/pkg/api/keys"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

const (
	// loginKeysFor is how long published login keys are repeated without asking.
	loginKeysFor = 5 * time.Second
	// loginKeysWait bounds one question.
	loginKeysWait = 5 * time.Second
)

// loginKeys are the keys that sign-ins are sealed to, as keys published them
// last. Strangers ask for them as often as they like; keys is asked by one of
// them at a time.
type loginKeys struct {
	conn   *rpc.Conn
	asking chan struct{} // holds one token

	mu    sync.Mutex
	set   *keys.LoginKeys
	err   error
	asked time.Time
}

func newLoginKeys(conn *rpc.Conn) *loginKeys {
	l := &loginKeys{conn: conn, asking: make(chan struct{}, 1)}
	l.asking <- struct{}{}
	return l
}

func (l *loginKeys) get(ctx context.Context) (*keys.LoginKeys, error) {
	came := time.Now()
	if set, err, ok := l.have(came.Add(-loginKeysFor)); ok && err == nil {
		return set, nil
	}
	select {
	case <-l.asking:
		defer func() { l.asking <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if set, err, ok := l.have(came); ok { // somebody has asked while this one waited
		return set, err
	}
	return l.ask(ctx)
}

// have gives what was heard last, if it was asked for after since.
func (l *loginKeys) have(since time.Time) (*keys.LoginKeys, error, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.set, l.err, l.asked.After(since)
}

func (l *loginKeys) ask(ctx context.Context) (*keys.LoginKeys, error) {
	// The answer is for everybody who waits, whether or not this caller does.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loginKeysWait)
	defer cancel()
	asked := time.Now()
	set, err := keys.Login.Call(ctx, l.conn, nil)
	if err != nil || len(set.Keys) == 0 {
		set, err = nil, notReady(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set, l.err, l.asked = set, err, asked
	return set, err
}

func notReady(cause error) error {
	return fault.Wrap(cause, fault.Unavailable, "the server is starting").WithReason("keys_not_ready").WithRetryAfter(time.Second)
}
