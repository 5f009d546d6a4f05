//go:build linux

package supervise

import (
	"fmt"
	"math"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// account is who a process runs as.
type account struct {
	uid, gid uint32
	groups   []uint32
}

// number reads a uid or gid. The highest value means "no change" to the
// kernel and is no id.
func number(s string) (id uint32, isNumber bool, err error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return 0, true, fmt.Errorf("%s is out of range", s)
	}
	return uint32(n), true, nil
}

// checkID accepts a number or something that may be a name.
func checkID(s string) error {
	if _, isNumber, err := number(s); isNumber {
		return err
	}
	if s == "" || strings.ContainsAny(s, ":/ \t\n\x00") || len(s) > 64 {
		return fmt.Errorf("%q is neither a name nor a number", s)
	}
	return nil
}

func checkUser(s string) error {
	uid, gid, both := strings.Cut(s, ":")
	if !both {
		return checkID(s)
	}
	for _, part := range []string{uid, gid} {
		_, isNumber, err := number(part)
		if err != nil {
			return err
		}
		if !isNumber {
			return fmt.Errorf("%q is neither a name nor uid nor uid:gid", s)
		}
	}
	return nil
}

func checkOwner(s string) error {
	u, g, both := strings.Cut(s, ":")
	if u != "" || !both {
		if err := checkID(u); err != nil {
			return err
		}
	}
	if both {
		return checkID(g)
	}
	return nil
}

// lookupUser gives the uid and the primary group. A bare number that the
// user database does not know has the group of the same number.
func lookupUser(s string) (uid, gid uint32, err error) {
	if s == "" {
		return uint32(os.Geteuid()), uint32(os.Getegid()), nil
	}
	if u, g, both := strings.Cut(s, ":"); both {
		if uid, _, err = number(u); err == nil {
			gid, _, err = number(g)
		}
		return uid, gid, err
	}
	uid, isNumber, err := number(s)
	if err != nil {
		return 0, 0, err
	}
	var found *user.User
	if isNumber {
		if found, err = user.LookupId(s); err != nil {
			return uid, uid, nil
		}
	} else if found, err = user.Lookup(s); err != nil {
		return 0, 0, fmt.Errorf("no user is called %q", s)
	}
	if uid, _, err = number(found.Uid); err == nil {
		gid, _, err = number(found.Gid)
	}
	return uid, gid, err
}

func lookupGroup(s string) (uint32, error) {
	if gid, isNumber, err := number(s); isNumber {
		return gid, err
	}
	g, err := user.LookupGroup(s)
	if err != nil {
		return 0, fmt.Errorf("no group is called %q", s)
	}
	gid, _, err := number(g.Gid)
	return gid, err
}

func lookupAccount(name string, groups []string) (account, error) {
	uid, gid, err := lookupUser(name)
	if err != nil {
		return account{}, err
	}
	a := account{uid: uid, gid: gid}
	for _, g := range groups {
		id, err := lookupGroup(g)
		if err != nil {
			return account{}, err
		}
		a.groups = append(a.groups, id)
	}
	return a, nil
}

// lookupOwner gives the owner of a socket file; -1 leaves a part as it is.
func lookupOwner(s string) (uid, gid int, err error) {
	uid, gid = -1, -1
	if s == "" {
		return uid, gid, nil
	}
	u, g, _ := strings.Cut(s, ":")
	if u != "" {
		id, _, err := lookupUser(u)
		if err != nil {
			return 0, 0, err
		}
		uid = int(id)
	}
	if g != "" {
		id, err := lookupGroup(g)
		if err != nil {
			return 0, 0, err
		}
		gid = int(id)
	}
	return uid, gid, nil
}
