package profile

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"vpnd/pkg/fault"
)

// Location is where a person's profile lies and whom it belongs to.
type Location struct {
	Base string // an existing or creatable folder, trusted
	Dir  string // below Base
	UID  int
	GID  int
}

// Path is the folder of the profile.
func (l Location) Path() string { return filepath.Join(l.Base, l.Dir) }

// File is the profile itself, for messages.
func (l Location) File() string { return filepath.Join(l.Path(), fileName) }

// Locate finds the profile of whoever runs the program: $XDG_CONFIG_HOME/vpnd,
// else ~/.config/vpnd. Under sudo it is that of the person who called sudo.
func Locate() (Location, error) {
	loc := Location{UID: os.Geteuid(), GID: os.Getegid()}
	home := ""
	if uid, ok := sudoUser(); ok {
		u, err := user.LookupId(uid)
		if err != nil {
			return loc, fault.Wrap(err, fault.Invalid, "SUDO_UID names no account of this machine").
				WithHint("run it as root without sudo, or unset SUDO_UID")
		}
		loc.UID, _ = strconv.Atoi(u.Uid) // numeric on every Unix
		loc.GID, _ = strconv.Atoi(u.Gid)
		home = u.HomeDir
	}
	if x := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(x) {
		loc.Base, loc.Dir = x, "vpnd"
		return loc, nil
	}
	if home == "" {
		h, err := os.UserHomeDir()
		if err != nil {
			return loc, fault.Wrap(err, fault.Invalid, "there is no home directory to keep the profile in").
				WithHint("set HOME or XDG_CONFIG_HOME")
		}
		home = h
	}
	loc.Base, loc.Dir = home, filepath.Join(".config", "vpnd")
	return loc, nil
}

// sudoUser is who called sudo, when root runs for somebody else.
func sudoUser() (uid string, ok bool) {
	uid = os.Getenv("SUDO_UID")
	return uid, os.Geteuid() == 0 && uid != "" && uid != "0"
}
