package torctl

import (
	"errors"
	"io/fs"
	"os/exec"
	"strings"
)

// InstallHint is what helps where FindTor finds nothing.
const InstallHint = "apt-get install tor"

// FindTor gives the path of the program, which is looked for in PATH where it
// is only a name, or why it cannot be run.
func FindTor(name string) (path, why string) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path, ""
	case errors.Is(err, fs.ErrPermission):
		return "", name + " is not a program that may be run"
	case strings.Contains(name, "/"):
		return "", name + " is not there"
	}
	return "", name + " is not on PATH"
}
