package daemon

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"

	"vpnd/pkg/config"
	"vpnd/pkg/fault"
)

// groupName is the group whose members may connect to service sockets: the
// services themselves. Who may call what is decided by uid.
const groupName = "vpnd"

// accounts are the numeric ids that services run as.
type accounts struct {
	uid map[string]uint32
	gid map[string]uint32
	all uint32 // the group of all services
}

// resolve finds the accounts: computed in dynamic mode, looked up otherwise.
func resolve(c config.Config) (accounts, error) {
	a := accounts{uid: map[string]uint32{}, gid: map[string]uint32{}}
	if c.Users.Mode == "dynamic" {
		a.all = c.Users.Base
		for _, e := range table() {
			a.uid[e.name], a.gid[e.name] = c.Users.Base+e.id, c.Users.Base+e.id
		}
		return a, nil
	}
	var missing []error
	g, err := user.LookupGroup(groupName)
	if err != nil {
		missing = append(missing, err)
	} else {
		a.all = number(g.Gid)
	}
	for _, e := range table() {
		u, err := user.Lookup(accountName(e.name))
		if err != nil {
			missing = append(missing, err)
			continue
		}
		a.uid[e.name], a.gid[e.name] = number(u.Uid), number(u.Gid)
	}
	if len(missing) > 0 {
		return a, fault.Wrap(errors.Join(missing...), fault.NotFound, "system accounts of vpnd are missing").
			WithHint("run 'vpnd init', or set users.mode = \"dynamic\"")
	}
	return a, nil
}

func accountName(service string) string { return "vpnd-" + service }

func number(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32) // as the user database gave it
	return uint32(n)
}

func (a accounts) spec(service string) string {
	return fmt.Sprintf("%d:%d", a.uid[service], a.gid[service])
}
