package users

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/sessions"
	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

// Siblings is what users asks of other services. Every method may be called
// again after it has succeeded.
type Siblings interface {
	// CloseSessions returns after the user's peers are gone.
	CloseSessions(ctx context.Context, user id.User, reason sessions.Reason, forget bool) error
	// RevokeUser voids the user's refresh tokens.
	RevokeUser(ctx context.Context, user id.User) error
	// ForgetUser removes the user's devices.
	ForgetUser(ctx context.Context, user id.User) error
}

// Deps are what Users works with. DB, Hash and Siblings are required.
type Deps struct {
	DB       *store.DB // opened with Migrations
	Hash     func(ctx context.Context, password string) (string, error)
	Siblings Siblings
	Log      *slog.Logger
	Publish  func(events.Event)
	Now      func() time.Time
}

// Users owns the accounts.
type Users struct {
	db       *store.DB
	hash     func(ctx context.Context, password string) (string, error)
	siblings Siblings
	log      *slog.Logger
	publish  func(events.Event)
	now      func() time.Time

	// changing keeps the order of memory and database the same. It is held for
	// one commit at a time and never while a sibling is asked.
	changing sync.Mutex
	accounts accounts

	wake chan struct{} // a task was left to Run
}

// New prepares Users. Load must run before anything else.
func New(deps Deps) (*Users, error) {
	if deps.DB == nil || deps.Hash == nil || deps.Siblings == nil {
		return nil, errors.New("users: a dependency is missing")
	}
	u := &Users{
		db: deps.DB, hash: deps.Hash, siblings: deps.Siblings, log: deps.Log, publish: deps.Publish, now: deps.Now,
		accounts: accounts{byID: map[id.User]usersapi.Account{}, byName: map[string]id.User{}},
		wake:     make(chan struct{}, 1),
	}
	if u.log == nil {
		u.log = slog.New(slog.DiscardHandler)
	}
	if u.publish == nil {
		u.publish = func(events.Event) {}
	}
	if u.now == nil {
		u.now = time.Now
	}
	return u, nil
}

// Load reads the accounts into memory.
func (u *Users) Load(ctx context.Context) error {
	u.changing.Lock()
	defer u.changing.Unlock()
	return u.db.Read(ctx, func(q store.Querier) error {
		rows, err := q.Query(`SELECT id, username, email, status, device_limit FROM users`)
		if err != nil {
			return err
		}
		for rows.Next() {
			var a usersapi.Account
			if err := rows.Scan(&a.ID, &a.Username, &a.Email, &a.Status, &a.DeviceLimit); err != nil {
				return err
			}
			u.accounts.put(a)
		}
		return rows.Err()
	})
}

// change edits one account, durably and then in memory. edit says whether
// anything changed; it may write more into the same transaction.
func (u *Users) change(ctx context.Context, user id.User, edit func(tx *store.Tx, r *record) (changed bool, err error)) (record, error) {
	u.changing.Lock()
	defer u.changing.Unlock()
	var r record
	err := u.db.Write(ctx, func(tx *store.Tx) (err error) {
		if r, err = readRecord(tx, user); err != nil {
			return err
		}
		changed, err := edit(tx, &r)
		if err != nil || !changed {
			return err
		}
		r.UpdatedAt = u.stamp()
		return updateRecord(tx, r)
	})
	switch {
	case isNoRows(err):
		return r, notFound(string(user))
	case err != nil:
		return r, u.taken(err, r.User)
	}
	u.accounts.put(r.account())
	return r, nil
}

// stamp is now as the database keeps it, so that answers are the same before
// and after a restart.
func (u *Users) stamp() time.Time { return u.now().UTC().Truncate(time.Microsecond) }

// taken explains the violation of a unique constraint.
func (u *Users) taken(err error, want usersapi.User) error {
	constraint, ok := store.IsUnique(err)
	if !ok {
		return err
	}
	if constraint == "users.email_key" {
		return fault.New(fault.Exists, "another user has the e-mail address %s", want.Email).WithReason("email_taken").
			WithHint("'vpnctl user list --search %s' shows who", want.Email)
	}
	return u.nameTaken(want.Username)
}

func (u *Users) nameTaken(name string) error {
	if holder, err := u.accounts.resolve(name); err == nil && holder.Status == usersapi.Deleting {
		return fault.New(fault.Conflict, "user %s is still being deleted", name).WithReason("deleting").
			WithHint("try again when 'vpnctl user list --status deleting' is empty")
	}
	return fault.New(fault.Exists, "user %s exists already", name).WithReason("username_taken").
		WithHint("choose another name, or see 'vpnctl user get %s'", name)
}

// announce tells the event feed and the log of a change.
func (u *Users) announce(ctx context.Context, kind string, acc usersapi.Account, reason string) {
	u.publish(events.Event{Type: kind, User: acc.Username, Reason: reason})
	about := []any{"user", acc.Username, "request_id", rpc.RequestID(ctx)}
	if reason != "" {
		about = append(about, "reason", reason)
	}
	switch kind {
	case "user.created", "user.changed", "user.deleted": // what a name stands for may be another now
		about = append(about, "user_id", acc.ID)
	}
	u.log.InfoContext(ctx, kind, about...)
}
