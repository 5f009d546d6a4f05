package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"

	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/supervise"
)

// step is one thing that init does, in words and as an action.
type step struct {
	words string
	do    func() error
}

// initCommand makes the system accounts and folders. Running it again changes
// nothing.
func initCommand(args []string) error {
	fs := flags("init")
	path := fs.String("config", config.DefaultPath, "configuration file")
	dry := fs.Bool("dry-run", false, "show what would be done")
	users := fs.String("users", "", "system or dynamic; default: the configuration's users.mode")
	if err := parse(fs, args); err != nil {
		return err
	}
	c, err := config.Load(*path)
	if err != nil {
		return err
	}
	switch *users {
	case "":
	case "system", "dynamic":
		c.Users.Mode = *users
	default:
		return fault.InvalidField("--users", "%q is neither system nor dynamic", *users)
	}
	if !*dry && os.Geteuid() != 0 {
		return fault.New(fault.Denied, "vpnd init needs root").WithHint("'vpnd init --dry-run' shows what it would do")
	}
	steps := initSteps(c)
	if len(steps) == 0 {
		fmt.Println("nothing to do")
		return nil
	}
	for _, s := range steps {
		if *dry {
			fmt.Println("would", s.words)
			continue
		}
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.words, err)
		}
		fmt.Println(s.words)
	}
	return nil
}

// initSteps lists what is missing. Accounts are made by the system's own
// groupadd and useradd, which know how this system keeps them.
func initSteps(c config.Config) []step {
	var out []step
	if c.Users.Mode == "system" {
		for _, g := range []string{groupName, c.Control.AdminGroup, c.Control.ViewGroup} {
			if _, err := user.LookupGroup(g); g != "" && err != nil {
				out = append(out, step{"make group " + g, run("groupadd", "--system", g)})
			}
		}
		for _, e := range table() {
			name := accountName(e.name)
			if _, err := user.Lookup(name); err != nil {
				out = append(out, step{"make account " + name, run("useradd", "--system", "--user-group", "--no-create-home",
					"--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", "--comment", "vpnd "+e.name, name)})
			}
		}
	}
	// Owners of folders are known once the accounts exist.
	for i, f := range folders(c, accounts{}) {
		if _, err := os.Stat(f.path); errors.Is(err, os.ErrNotExist) {
			out = append(out, step{"make folder " + f.path, func() error {
				a, err := resolve(c)
				if err != nil {
					return err
				}
				return folders(c, a)[i].make()
			}})
		}
	}
	return out
}

func run(name string, args ...string) func() error {
	return func() error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
		}
		return nil
	}
}

// printServices prints the built-in services the way services.json has them.
func printServices(path string) error {
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	a, err := resolve(c)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	base, err := builtin(c, a, filepath.Clean(self))
	if err != nil {
		return err
	}
	for name, s := range base {
		s.Env = nil // the digest of the configuration is nobody's to set
		base[name] = s
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(map[string]map[string]supervise.Spec{"services": base})
}
