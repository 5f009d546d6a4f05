package users

import (
	"slices"
	"strings"
	"sync"

	"vpnd/pkg/api/id"
	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/fault"
)

// leastPrefix is the shortest prefix of an id that names an account: shorter
// ones are typing mistakes.
const leastPrefix = len(id.UserPrefix) + 2

// accounts is what siblings ask about on every connect, in memory. It is
// changed after the database was.
type accounts struct {
	mu     sync.RWMutex
	byID   map[id.User]usersapi.Account
	byName map[string]id.User
}

func (a *accounts) put(acc usersapi.Account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old, ok := a.byID[acc.ID]; ok && old.Username != acc.Username {
		delete(a.byName, old.Username)
	}
	a.byID[acc.ID] = acc
	a.byName[acc.Username] = acc.ID
}

func (a *accounts) remove(user id.User) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.byName, a.byID[user].Username)
	delete(a.byID, user)
}

func (a *accounts) get(user id.User) (usersapi.Account, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	acc, ok := a.byID[user]
	return acc, ok
}

// resolve finds what an operator typed: username, id, or unique prefix of an id.
func (a *accounts) resolve(ref string) (usersapi.Account, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if user, ok := a.byName[ref]; ok {
		return a.byID[user], nil
	}
	if acc, ok := a.byID[id.User(ref)]; ok {
		return acc, nil
	}
	var found []usersapi.Account
	if len(ref) >= leastPrefix && strings.HasPrefix(ref, id.UserPrefix) {
		for user, acc := range a.byID {
			if strings.HasPrefix(string(user), ref) {
				found = append(found, acc)
			}
		}
	}
	switch len(found) {
	case 0:
		return usersapi.Account{}, notFound(ref)
	case 1:
		return found[0], nil
	}
	return usersapi.Account{}, ambiguous(ref, found)
}

func notFound(ref string) error {
	return fault.New(fault.NotFound, "no user %q", ref).WithHint("'vpnctl user list' shows the users")
}

func ambiguous(ref string, found []usersapi.Account) error {
	const shown = 5
	slices.SortFunc(found, func(x, y usersapi.Account) int { return strings.Compare(x.Username, y.Username) })
	var names []string
	for _, acc := range found[:min(shown, len(found))] {
		names = append(names, string(acc.ID)+" ("+acc.Username+")")
	}
	if len(found) > shown {
		names = append(names, "…")
	}
	return fault.New(fault.Conflict, "%q could be %d users: %s", ref, len(found), strings.Join(names, ", ")).
		WithReason("ambiguous").WithHint("type more of the id, or the username")
}
