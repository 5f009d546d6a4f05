//go:build linux

package control

import (
	"fmt"
	"os/user"
	"strconv"
	"sync"
	"time"

	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// forgetAfter is for how long what the account database said is believed:
// groups made while vpnd runs count soon, and a burst of calls does not read
// the database each time.
const forgetAfter = 10 * time.Second

// access turns peer credentials into callers.
type access struct {
	adminGroup, viewGroup string

	mu       sync.Mutex
	read     time.Time
	admin    *uint32 // nil: no such group
	view     *uint32
	accounts map[uint32]account
}

type account struct {
	name    string
	primary *uint32 // group of the account database, nil where there is none
}

func newAccess(c config.Control) *access {
	return &access{adminGroup: c.AdminGroup, viewGroup: c.ViewGroup}
}

// identify admits root and the members of the two groups.
func (a *access) identify(p rpc.PeerCred) (rpc.Caller, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := time.Now(); a.read.IsZero() || now.Sub(a.read) > forgetAfter {
		a.read, a.accounts = now, map[uint32]account{}
		a.admin, a.view = groupID(a.adminGroup), groupID(a.viewGroup)
	}
	who, ok := a.accounts[p.UID]
	if !ok {
		who = lookup(p.UID)
		a.accounts[p.UID] = who
	}
	c := rpc.Caller{Name: who.name}
	switch {
	case p.UID == 0, who.in(p, a.admin):
		c.Access = rpc.Admin
	case who.in(p, a.view):
		c.Access = rpc.View
	default:
		return c, a.refusal(who.name)
	}
	return c, nil
}

func (a *access) refusal(who string) error {
	err := fault.New(fault.Denied, "%s may not talk to vpnd", who)
	if a.admin == nil && a.view == nil {
		return err.WithHint("run as root, or make the group %s (may look) or %s (may change things) and sign in again as a member", a.viewGroup, a.adminGroup)
	}
	return err.WithHint("run as root, or sign in again as a member of group %s (may look) or %s (may change things)", a.viewGroup, a.adminGroup)
}

// in tells whether the process or its account belongs to the group.
func (w account) in(p rpc.PeerCred, gid *uint32) bool {
	return gid != nil && (p.InGroup(*gid) || w.primary != nil && *w.primary == *gid)
}

func lookup(uid uint32) account {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return account{name: fmt.Sprintf("uid %d", uid)}
	}
	return account{name: u.Username, primary: parseID(u.Gid)}
}

func groupID(name string) *uint32 {
	if name == "" {
		return nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return nil
	}
	return parseID(g.Gid)
}

func parseID(s string) *uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return nil
	}
	id := uint32(n)
	return &id
}
