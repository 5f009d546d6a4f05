package lanes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"vpnd/pkg/durable"
	"vpnd/pkg/fault"
	"vpnd/pkg/wgdev"
)

// loadKey reads an interface's private key, and makes it when there is none.
// A key that is there but broken is never replaced: every client would have to
// sign in again, so that is for the operator to decide.
func loadKey(path string) (wgdev.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return wgdev.PrivateKey{}, fmt.Errorf("read interface key: %w", err)
	}
	key, err := wgdev.ParsePrivateKey(strings.TrimSpace(string(data)))
	if err != nil {
		return wgdev.PrivateKey{}, fault.New(fault.Unavailable, "%s does not hold a WireGuard private key", path).
			WithHint("restore it from a backup, or delete it: a new one is made and every client must connect again")
	}
	return key, nil
}

// makeKey writes a new key durably before anybody uses it.
func makeKey(path string) (wgdev.PrivateKey, error) {
	key, err := wgdev.GeneratePrivateKey()
	if err != nil {
		return key, err
	}
	if err := durable.Write(path, []byte(key.Reveal()+"\n")); err != nil {
		return wgdev.PrivateKey{}, fmt.Errorf("write interface key: %w", err)
	}
	return key, nil
}
