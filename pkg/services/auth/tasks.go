package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"vpnd/pkg/api/id"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

const (
	// shortPatience bounds one attempt for callers who wait 10 s, longPatience
	// for those who wait 30 s.
	shortPatience = 8 * time.Second
	longPatience  = 25 * time.Second

	retryFirst = 250 * time.Millisecond
	retryLast  = 15 * time.Second
)

// task is a session that must still be closed. Its kind is the reason; the
// task of a deleted device also removes what is left of the device.
type task struct {
	id     int64
	device id.Device
	kind   sessions.Reason
}

// plan records a task. It replaces an older one of the same kind.
func plan(tx *store.Tx, dev id.Device, kind sessions.Reason, now time.Time) (task, error) {
	if err := dropTask(tx, dev, kind); err != nil {
		return task{}, err
	}
	res, err := tx.Exec(`INSERT INTO tasks (device_id, kind, created_at) VALUES (?, ?, ?)`, dev, kind, now)
	return task{id: res.LastInsertID, device: dev, kind: kind}, err
}

func dropTask(tx *store.Tx, dev id.Device, kind sessions.Reason) error {
	_, err := tx.Exec(`DELETE FROM tasks WHERE device_id = ? AND kind = ?`, dev, kind)
	return err
}

// findTask gives the oldest unfinished task of a device; id 0 for none.
func findTask(q store.Querier, dev id.Device) (t task, err error) {
	err = q.QueryRow(`SELECT id, device_id, kind FROM tasks WHERE device_id = ? ORDER BY id LIMIT 1`, dev).Scan(&t.id, &t.device, &t.kind)
	if errors.Is(err, store.ErrNoRows) {
		return task{}, nil
	}
	return t, err
}

// attempt does a task for a caller who waits. It goes on when the caller goes
// away, and what it cannot do is left to Run.
func (a *Auth) attempt(ctx context.Context, t task, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err := a.finish(ctx, t)
	if err != nil {
		d, _ := a.devices.get(t.device)
		a.log.WarnContext(ctx, "task.postponed", "kind", string(t.kind), "user", d.username, "device", d.name, "err", err,
			"device_id", t.device, "request_id", rpc.RequestID(ctx))
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
	return err
}

// pending is the answer when the change is durable but sessions did not follow
// yet. Its code is the sibling's: unavailable or timeout.
func pending(err error, done string) error {
	code := fault.Unavailable
	if errors.Is(err, fault.Timeout) || errors.Is(err, context.DeadlineExceeded) {
		code = fault.Timeout
	}
	return fault.Wrap(err, code, "%s; it is being retried", done).WithReason(reasonPending)
}

// finish does a task and crosses it off.
func (a *Auth) finish(ctx context.Context, t task) error {
	deleted := t.kind == sessions.DeviceDeleted
	if err := a.sessions.Close(ctx, t.device, t.kind, deleted); err != nil {
		return fmt.Errorf("close session: %w", err)
	}
	if deleted {
		return a.erase(ctx, t.device)
	}
	return a.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM tasks WHERE id = ?`, t.id)
		return err
	})
}

// erase removes what is left of a deleted device.
func (a *Auth) erase(ctx context.Context, dev id.Device) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	d, _ := a.devices.get(dev)
	var gone bool
	err := a.db.Write(ctx, func(tx *store.Tx) error {
		res, err := tx.Exec(`DELETE FROM devices WHERE id = ? AND deleting = 1`, dev)
		gone = res.RowsAffected > 0
		return err
	})
	if err != nil || !gone { // another attempt was first
		return err
	}
	a.devices.remove(dev)
	a.guard.forget(deviceBucket(dev))
	a.announce(ctx, slog.LevelInfo, "device.deleted", d, "", "")
	return nil
}

// runTasks does the tasks that an earlier process, or a caller who could not
// wait, has left.
func (a *Auth) runTasks(ctx context.Context) {
	wait := retryFirst
	for {
		left, err := a.sweepTasks(ctx)
		var again <-chan time.Time
		if err != nil {
			if ctx.Err() == nil {
				a.log.Warn("tasks.unfinished", "left", left, "err", err)
			}
			again = time.After(wait)
			wait = min(2*wait, retryLast)
		} else {
			wait = retryFirst
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-a.wake:
			wait = retryFirst
			select { // sessions has just failed: give it a moment
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
	}
}

// sweepTasks tries every task once.
func (a *Auth) sweepTasks(ctx context.Context) (left int, err error) {
	var todo []task
	err = a.db.Read(ctx, func(q store.Querier) error {
		rows, err := q.Query(`SELECT id, device_id, kind FROM tasks ORDER BY id`)
		if err != nil {
			return err
		}
		for rows.Next() {
			var t task
			if err := rows.Scan(&t.id, &t.device, &t.kind); err != nil {
				return err
			}
			todo = append(todo, t)
		}
		return rows.Err()
	})
	if err != nil {
		return 0, fmt.Errorf("read tasks: %w", err)
	}
	for _, t := range todo {
		if ctx.Err() != nil {
			return len(todo), ctx.Err()
		}
		each, cancel := context.WithTimeout(ctx, longPatience)
		if ferr := a.finish(each, t); ferr != nil {
			left++
			err = fmt.Errorf("%s of %s: %w", t.kind, t.device, ferr)
		}
		cancel()
	}
	return left, err
}
