//go:build linux

package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestGeneratedFilesAreFresh makes the committed files anew and compares.
func TestGeneratedFilesAreFresh(t *testing.T) {
	for shell, file := range map[string]string{"bash": "vpnctl.bash", "zsh": "_vpnctl", "fish": "vpnctl.fish"} {
		got, err := exec.Command(filepath.Join(bin, "vpnctl"), "completion", shell).Output()
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join("..", "..", "completions", file))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("completions/%s is not what the program prints: 'make generate'", file)
		}
	}
}
