package users

import (
	"context"
	"errors"

	"vpnd/pkg/api/id"
	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

const defaultDeviceLimit = 5

// Get gives one account.
func (u *Users) Get(ctx context.Context, req *usersapi.Ref) (*usersapi.User, error) {
	acc, err := u.accounts.resolve(req.User)
	if err != nil {
		return nil, err
	}
	var r record
	err = u.db.Read(ctx, func(q store.Querier) (err error) {
		r, err = readRecord(q, acc.ID)
		return err
	})
	if isNoRows(err) {
		return nil, notFound(req.User)
	}
	return &r.User, err
}

// Create makes an account.
func (u *Users) Create(ctx context.Context, req *usersapi.CreateRequest) (*usersapi.User, error) {
	if err := checkUsername(req.Body.Username); err != nil {
		return nil, err
	}
	if err := checkEmail(req.Body.Email); err != nil {
		return nil, err
	}
	// Hashing takes long: a name that is taken is told before it.
	if _, err := u.accounts.resolve(req.Body.Username); err == nil {
		return nil, u.nameTaken(req.Body.Username)
	}
	hash, err := u.hashPassword(ctx, req.Body.Password)
	if err != nil {
		return nil, err
	}
	now := u.stamp()
	r := record{hash: hash, User: usersapi.User{
		ID: id.NewUser(), Username: req.Body.Username, Email: req.Body.Email, Status: usersapi.Active, StatusSince: now,
		DeviceLimit: req.Body.DeviceLimit, CreatedAt: now, UpdatedAt: now,
	}}
	if r.DeviceLimit == 0 {
		r.DeviceLimit = defaultDeviceLimit
	}
	u.changing.Lock()
	defer u.changing.Unlock()
	if err := u.db.Write(ctx, func(tx *store.Tx) error { return insertRecord(tx, r) }); err != nil {
		return nil, u.taken(err, r.User)
	}
	u.accounts.put(r.account())
	u.announce(ctx, "user.created", r.account(), "")
	return &r.User, nil
}

// Set changes what is given and nothing else.
func (u *Users) Set(ctx context.Context, req *usersapi.SetRequest) (*usersapi.User, error) {
	b := req.Body
	if b.Username != nil {
		if err := checkUsername(*b.Username); err != nil {
			return nil, err
		}
	}
	if b.Email != nil {
		if err := checkEmail(*b.Email); err != nil {
			return nil, err
		}
	}
	acc, err := u.accounts.resolve(req.User)
	if err != nil {
		return nil, err
	}
	var changed bool
	r, err := u.change(ctx, acc.ID, func(_ *store.Tx, r *record) (bool, error) {
		if err := notDeleting(*r); err != nil {
			return false, err
		}
		before := r.User
		if b.Username != nil {
			r.Username = *b.Username
		}
		if b.Email != nil {
			r.Email = *b.Email
		}
		if b.DeviceLimit != nil {
			r.DeviceLimit = *b.DeviceLimit
		}
		changed = r.User != before
		return changed, nil
	})
	if err != nil {
		return nil, err
	}
	if changed {
		u.announce(ctx, "user.changed", r.account(), "")
	}
	return &r.User, nil
}

// SetPassword sets a password and ends the user's sign-ins.
func (u *Users) SetPassword(ctx context.Context, req *usersapi.PasswordRequest) (*rpc.None, error) {
	acc, err := u.accounts.resolve(req.User)
	if err != nil {
		return nil, err
	}
	hash, err := u.hashPassword(ctx, req.Body.Password)
	if err != nil {
		return nil, err
	}
	var t task
	r, err := u.change(ctx, acc.ID, func(tx *store.Tx, r *record) (_ bool, err error) {
		if err := notDeleting(*r); err != nil {
			return false, err
		}
		r.hash = hash
		t, err = plan(tx, acc.ID, endSignIns, u.now())
		return true, err
	})
	if err != nil {
		return nil, err
	}
	u.announce(ctx, "user.changed", r.account(), "password")
	if err := u.attempt(ctx, t); err != nil {
		return nil, pending(err, "the password of "+r.Username+" is set, but the old sign-ins could not be ended yet")
	}
	return &rpc.None{}, nil
}

// Suspend refuses the user everything and returns after their peers are gone.
// Suspending again makes sure of that.
func (u *Users) Suspend(ctx context.Context, req *usersapi.Ref) (*usersapi.User, error) {
	acc, err := u.accounts.resolve(req.User)
	if err != nil {
		return nil, err
	}
	var t task
	var changed bool
	r, err := u.change(ctx, acc.ID, func(tx *store.Tx, r *record) (_ bool, err error) {
		if err := notDeleting(*r); err != nil {
			return false, err
		}
		if changed = r.Status != usersapi.Suspended; changed {
			r.Status, r.StatusSince = usersapi.Suspended, u.stamp()
		}
		t, err = plan(tx, acc.ID, endSessions, u.now())
		return changed, err
	})
	if err != nil {
		return nil, err
	}
	if changed {
		u.announce(ctx, "user.suspended", r.account(), "")
	}
	if err := u.attempt(ctx, t); err != nil {
		return nil, pending(err, r.Username+" is suspended, but the peers could not be removed yet")
	}
	return &r.User, nil
}

// Activate undoes Suspend.
func (u *Users) Activate(ctx context.Context, req *usersapi.Ref) (*usersapi.User, error) {
	acc, err := u.accounts.resolve(req.User)
	if err != nil {
		return nil, err
	}
	var changed bool
	r, err := u.change(ctx, acc.ID, func(tx *store.Tx, r *record) (bool, error) {
		if err := notDeleting(*r); err != nil {
			return false, err
		}
		if changed = r.Status != usersapi.Active; !changed {
			return false, nil
		}
		r.Status, r.StatusSince = usersapi.Active, u.stamp()
		return true, dropTasks(tx, acc.ID, endSessions)
	})
	if err != nil {
		return nil, err
	}
	if changed {
		u.announce(ctx, "user.activated", r.account(), "")
	}
	return &r.User, nil
}

// Delete removes the account and returns after the peers are gone.
func (u *Users) Delete(ctx context.Context, req *usersapi.Ref) (*rpc.None, error) {
	acc, err := u.accounts.resolve(req.User)
	if err != nil {
		return nil, err
	}
	var t task
	r, err := u.change(ctx, acc.ID, func(tx *store.Tx, r *record) (bool, error) {
		if _, err := tx.Exec(`DELETE FROM tasks WHERE user_id = ?`, acc.ID); err != nil {
			return false, err
		}
		var err error
		t, err = plan(tx, acc.ID, erase, u.now())
		if r.Status == usersapi.Deleting {
			return false, err
		}
		r.Status, r.StatusSince = usersapi.Deleting, u.stamp()
		return true, err
	})
	if err != nil {
		return nil, err
	}
	if err := u.attempt(ctx, t); err != nil {
		return nil, pending(err, r.Username+" is locked out and will be deleted, but not everything could be removed yet")
	}
	return &rpc.None{}, nil
}

// hashPassword names the field where the password breaks the policy.
func (u *Users) hashPassword(ctx context.Context, password string) (string, error) {
	hash, err := u.hash(ctx, password)
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Code == fault.Invalid && len(f.Fields) > 0 {
		return "", fault.InvalidField("body.password", "%s", f.Fields[0].Message)
	}
	return hash, err
}

func notDeleting(r record) error {
	if r.Status == usersapi.Deleting {
		return fault.New(fault.Conflict, "user %s is being deleted", r.Username).WithReason("deleting")
	}
	return nil
}

// Lookup gives the account that signs in, with its password hash.
func (u *Users) Lookup(ctx context.Context, req *usersapi.LookupRequest) (*usersapi.Credentials, error) {
	var r record
	err := u.db.Read(ctx, func(q store.Querier) (err error) {
		r, err = findLogin(q, req.Body.Login)
		return err
	})
	if isNoRows(err) {
		return nil, fault.New(fault.NotFound, "no such user")
	}
	if err != nil {
		return nil, err
	}
	return &usersapi.Credentials{
		ID: r.ID, Username: r.Username, Email: r.Email, Status: r.Status, DeviceLimit: r.DeviceLimit, PasswordHash: r.hash,
	}, nil
}

// Standing tells whether an account exists and is active, from memory.
func (u *Users) Standing(_ context.Context, req *usersapi.Ref) (*usersapi.Account, error) {
	if acc, ok := u.accounts.get(id.User(req.User)); ok {
		return &acc, nil
	}
	acc, err := u.accounts.resolve(req.User)
	return &acc, err
}

func (u *Users) register(s *rpc.Server) {
	rpc.Handle(s, usersapi.ListUsers, u.List)
	rpc.Handle(s, usersapi.Get, u.Get)
	rpc.Handle(s, usersapi.Create, u.Create)
	rpc.Handle(s, usersapi.Set, u.Set)
	rpc.Handle(s, usersapi.SetPassword, u.SetPassword)
	rpc.Handle(s, usersapi.Suspend, u.Suspend)
	rpc.Handle(s, usersapi.Activate, u.Activate)
	rpc.Handle(s, usersapi.Delete, u.Delete)
	rpc.Handle(s, usersapi.Lookup, u.Lookup)
	rpc.Handle(s, usersapi.Standing, u.Standing)
	rpc.Handle(s, usersapi.Seen, u.Seen)
	rpc.Handle(s, usersapi.AddUsage, u.AddUsage)
}
