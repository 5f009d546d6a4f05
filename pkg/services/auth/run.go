package auth

import (
	"context"
	"sync"
	"time"

	authapi "vpnd/pkg/api/auth"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

const (
	journalEvery = time.Second
	sweepEvery   = time.Minute

	// keptExpired is how long a family that expired can still say so, rather
	// than that the token is not valid.
	keptExpired = 30 * 24 * time.Hour

	readySlow    = 5 * time.Second
	readyTimeout = 2 * time.Second
)

// Run does the background work until ctx ends.
func (a *Auth) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, work := range []func(context.Context){a.runTasks, a.tellUsers, a.watchKeys, a.runJournal, a.runSweep} {
		wg.Go(func() { work(ctx) })
	}
	wg.Wait()
	return ctx.Err()
}

// watchKeys keeps Ready up to date: often until keys answers, then now and then.
func (a *Auth) watchKeys(ctx context.Context) {
	wait := 20 * time.Millisecond
	for {
		try, cancel := context.WithTimeout(ctx, readyTimeout)
		err := a.keys.Ready(try)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if a.unready.Swap(nil) != nil {
				a.log.Info("keys.answer")
			}
			wait = readySlow
		} else {
			why := "keys: " + err.Error()
			a.unready.Store(&why)
			wait = min(max(2*wait, 40*time.Millisecond), time.Second)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// runJournal writes down what the guard counts, so that a restart does not
// forget it: at most once a second, and once more at the end.
func (a *Auth) runJournal(ctx context.Context) {
	tick := time.NewTicker(journalEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
			defer cancel()
			a.writeJournal(last)
			return
		case <-tick.C:
			a.writeJournal(ctx)
		}
	}
}

func (a *Auth) writeJournal(ctx context.Context) {
	changes := a.guard.changes()
	if len(changes) == 0 {
		return
	}
	err := a.db.Write(ctx, func(tx *store.Tx) error {
		for b, until := range changes {
			var err error
			if until.IsZero() {
				_, err = tx.Exec(`DELETE FROM guard WHERE bucket = ?`, b)
			} else {
				_, err = tx.Exec(`INSERT INTO guard (bucket, until) VALUES (?, ?) ON CONFLICT (bucket) DO UPDATE SET until = excluded.until`, b, until)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		a.guard.unwritten(changes)
		a.log.Warn("guard.not_saved", "err", err)
	}
}

// runSweep removes what nobody will ask for again.
func (a *Auth) runSweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := a.sweep(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("sweep.failed", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (a *Auth) sweep(ctx context.Context) error {
	a.nonces.sweep()
	now := a.now()
	return a.db.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(`DELETE FROM nonces WHERE expires_at < ?`, now); err != nil {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM families WHERE expires_at < ?`, now.Add(-keptExpired)); err != nil {
			return err
		}
		_, err := tx.Exec(`DELETE FROM guard WHERE until < ?`, now)
		return err
	})
}

func (a *Auth) register(s *rpc.Server) {
	rpc.Handle(s, authapi.Login, outward(a, a.Login))
	rpc.Handle(s, authapi.Reauth, outward(a, a.Reauth))
	rpc.Handle(s, authapi.Logout, outward(a, a.Logout))
	rpc.Handle(s, authapi.DeviceList, a.DeviceList)
	rpc.Handle(s, authapi.DeviceGet, a.DeviceGet)
	rpc.Handle(s, authapi.DeviceDelete, a.DeviceDelete)
	rpc.Handle(s, authapi.DeviceCheck, a.DeviceCheck)
	rpc.Handle(s, authapi.ForgetUser, a.ForgetUser)
	rpc.Handle(s, authapi.RevokeUser, a.RevokeUser)
}
