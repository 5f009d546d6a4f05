package users

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vpnd/pkg/api/id"
	"vpnd/pkg/api/sessions"
	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

// kind of a task.
type kind string

const (
	endSessions kind = "end_sessions" // of a suspended user
	endSignIns  kind = "end_sign_ins" // after a new password
	erase       kind = "erase"        // a deleted user
)

const (
	// taskPatience bounds one attempt: a little less than the 30 s that the
	// callers of Suspend and Delete wait.
	taskPatience = 25 * time.Second

	retryFirst = 250 * time.Millisecond
	retryLast  = 15 * time.Second
)

// task is something siblings must still be told.
type task struct {
	id   int64
	user id.User
	kind kind
}

// plan records a task. It replaces an older one of the same kind.
func plan(tx *store.Tx, user id.User, k kind, now time.Time) (task, error) {
	if err := dropTasks(tx, user, k); err != nil {
		return task{}, err
	}
	res, err := tx.Exec(`INSERT INTO tasks (user_id, kind, created_at) VALUES (?, ?, ?)`, user, k, now)
	return task{id: res.LastInsertID, user: user, kind: k}, err
}

func dropTasks(tx *store.Tx, user id.User, k kind) error {
	_, err := tx.Exec(`DELETE FROM tasks WHERE user_id = ? AND kind = ?`, user, k)
	return err
}

// attempt does a task for a caller who waits. It goes on when the caller goes
// away, and what it cannot do is left to Run.
func (u *Users) attempt(ctx context.Context, t task) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), taskPatience)
	defer cancel()
	err := u.finish(ctx, t)
	if err != nil {
		acc, _ := u.accounts.get(t.user)
		u.log.WarnContext(ctx, "task.postponed", "kind", string(t.kind), "user", acc.Username, "err", err, "user_id", t.user, "request_id", rpc.RequestID(ctx))
		select {
		case u.wake <- struct{}{}:
		default:
		}
	}
	return err
}

// pending is the answer when the change is durable but a sibling did not
// follow yet. Its code is the sibling's: unavailable or timeout.
func pending(err error, done string) error {
	code := fault.Unavailable
	if errors.Is(err, fault.Timeout) || errors.Is(err, context.DeadlineExceeded) {
		code = fault.Timeout
	}
	return fault.Wrap(err, code, "%s; it is being retried", done).WithReason("pending").
		WithHint("'vpnctl service list' shows what is down; repeating the command waits for it again")
}

// finish does a task and crosses it off.
func (u *Users) finish(ctx context.Context, t task) error {
	switch t.kind {
	case endSessions:
		if acc, ok := u.accounts.get(t.user); ok && acc.Status == usersapi.Suspended {
			if err := u.siblings.CloseSessions(ctx, t.user, sessions.UserSuspended, false); err != nil {
				return fmt.Errorf("close sessions: %w", err)
			}
		}
	case endSignIns:
		if err := u.siblings.RevokeUser(ctx, t.user); err != nil {
			return fmt.Errorf("end sign-ins: %w", err)
		}
	case erase:
		return u.erase(ctx, t.user)
	default:
		return fmt.Errorf("unknown task %q", t.kind)
	}
	return u.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM tasks WHERE id = ?`, t.id)
		return err
	})
}

// erase removes a deleted user from everywhere, here last: until then the row
// is what remembers that there is something left to do.
func (u *Users) erase(ctx context.Context, user id.User) error {
	if err := u.siblings.CloseSessions(ctx, user, sessions.UserDeleted, true); err != nil {
		return fmt.Errorf("close sessions: %w", err)
	}
	if err := u.siblings.ForgetUser(ctx, user); err != nil {
		return fmt.Errorf("forget devices: %w", err)
	}
	u.changing.Lock()
	defer u.changing.Unlock()
	acc, _ := u.accounts.get(user)
	var gone bool
	err := u.db.Write(ctx, func(tx *store.Tx) error {
		res, err := tx.Exec(`DELETE FROM users WHERE id = ? AND status = ?`, user, usersapi.Deleting)
		gone = res.RowsAffected > 0
		return err
	})
	if err != nil || !gone { // another attempt was first
		return err
	}
	u.accounts.remove(user)
	u.announce(ctx, "user.deleted", acc, "")
	return nil
}

// Run does the tasks that an earlier process, or a caller who could not wait,
// has left.
func (u *Users) Run(ctx context.Context) error {
	wait := retryFirst
	for {
		left, err := u.sweep(ctx)
		if err != nil && ctx.Err() == nil {
			u.log.Warn("tasks.unfinished", "left", left, "err", err)
		}
		var again <-chan time.Time
		if err != nil {
			again = time.After(wait)
			wait = min(2*wait, retryLast)
		} else {
			wait = retryFirst
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
		case <-u.wake:
			wait = retryFirst
			select { // the sibling has just failed: give it a moment
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(wait):
			}
		}
	}
}

// sweep tries every task once.
func (u *Users) sweep(ctx context.Context) (left int, err error) {
	var todo []task
	err = u.db.Read(ctx, func(q store.Querier) error {
		rows, err := q.Query(`SELECT id, user_id, kind FROM tasks ORDER BY id`)
		if err != nil {
			return err
		}
		for rows.Next() {
			var t task
			if err := rows.Scan(&t.id, &t.user, &t.kind); err != nil {
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
		each, cancel := context.WithTimeout(ctx, taskPatience)
		if ferr := u.finish(each, t); ferr != nil {
			left++
			err = fmt.Errorf("%s of %s: %w", t.kind, t.user, ferr)
		}
		cancel()
	}
	return left, err
}
