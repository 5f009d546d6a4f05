package torctl

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFindTorSaysWhyNot(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"good": 0o700, "bad": 0o600} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	for _, c := range []struct{ name, path, why string }{
		{"good", dir + "/good", ""},
		{dir + "/good", dir + "/good", ""},
		{"nosuchtor", "", "nosuchtor is not on PATH"},
		{dir + "/none", "", dir + "/none is not there"},
		{dir + "/bad", "", dir + "/bad is not a program that may be run"},
	} {
		if path, why := FindTor(c.name); path != c.path || why != c.why {
			t.Errorf("%s: %q, %q", c.name, path, why)
		}
	}
}
