//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
)

// Build compiles the given main packages of this module into dir, each under
// the last part of its path: Build(ctx, dir, "vpnd/cmd/vpnctl") makes
// dir/vpnctl. It needs the go command, and a working directory inside the module.
func Build(ctx context.Context, dir string, packages ...string) error {
	if len(packages) == 0 {
		return errors.New("build: no packages")
	}
	// The slash makes it a directory also when there is just one package.
	args := append([]string{"build", "-o", dir + "/"}, packages...)
	out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build %v: %w\n%s", packages, err, out)
	}
	return nil
}
