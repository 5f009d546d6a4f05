package profile_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/client/profile"
	"vpnd/pkg/api/client"
	"vpnd/pkg/fault"
)

func store(t *testing.T) (*profile.Store, string) {
	t.Helper()
	base := t.TempDir()
	loc := profile.Location{Base: base, Dir: ".config/vpnd", UID: os.Geteuid(), GID: os.Getegid()}
	return profile.New(loc), loc.File()
}

func signIn(p *profile.Profile) {
	p.Server = profile.Server{Host: "vpn.example.org", Port: 4605, Pin: "sha256/x"}
	p.Device.Name = "laptop"
	p.SetTokens(client.Tokens{
		AccessToken: "access-secret", ExpiresIn: 900, RefreshToken: "refresh-secret", RefreshExpiresIn: 3600, DeviceID: "dev_1",
		User: client.TokenUser{ID: "usr_1", Username: "alice", Email: "a@example.org"},
	}, time.Now())
}

func update(t *testing.T, s *profile.Store, fn func(*profile.Profile)) {
	t.Helper()
	err := s.Update(t.Context(), func(p *profile.Profile, _ func() error) error { fn(p); return nil })
	if err != nil {
		t.Fatal(err)
	}
}

func TestNobodyHasSignedIn(t *testing.T) {
	s, file := store(t)
	p, err := s.Load()
	if err != nil || p.SignedIn() {
		t.Fatalf("got %+v, %v", p, err)
	}
	if _, err := os.Stat(filepath.Dir(file)); !os.IsNotExist(err) {
		t.Errorf("loading made the folder: %v", err)
	}
}

func TestWhatIsStoredComesBack(t *testing.T) {
	s, _ := store(t)
	var want profile.Profile
	update(t, s, func(p *profile.Profile) {
		signIn(p)
		p.Lane = profile.Tor
		if err := p.EnsureKey(); err != nil {
			t.Fatal(err)
		}
		p.Session = &profile.Session{Initiated: client.Initiated{SessionID: "ses_1", HardTTL: 60}, PublicKey: p.Key.Public(), OpenedAt: time.Now().UTC().Round(0)}
		want = *p
	})
	got, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	if !got.Tokens.Refresh.Equal(want.Tokens.Refresh) || !got.Tokens.Access.Equal(want.Tokens.Access) || !got.Key.Equal(want.Key) {
		t.Error("the secrets differ")
	}
	if !got.Tokens.AccessExpires.Equal(want.Tokens.AccessExpires) || got.KeyOf != "dev_1" || got.Lane != profile.Tor {
		t.Errorf("got %+v", got)
	}
	if d := cmp.Diff(want.Session, got.Session); d != "" {
		t.Error(d)
	}
}

func TestOnlyTheOwnerReadsIt(t *testing.T) {
	s, file := store(t)
	update(t, s, signIn)
	for path, want := range map[string]os.FileMode{file: 0o600, filepath.Dir(file): 0o700 | os.ModeDir, filepath.Join(filepath.Dir(file), "lock"): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: got %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	entries, _ := os.ReadDir(filepath.Dir(file))
	if len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestRootWritesForThePersonWhoCalledSudo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	home := t.TempDir()
	const uid = 12345
	if err := os.Chown(home, uid, uid); err != nil {
		t.Fatal(err)
	}
	s := profile.New(profile.Location{Base: home, Dir: ".config/vpnd", UID: uid, GID: uid})
	update(t, s, signIn)
	for _, name := range []string{".config", ".config/vpnd", ".config/vpnd/profile.json", ".config/vpnd/lock"} {
		out, err := exec.Command("stat", "-c", "%u:%g", filepath.Join(home, name)).Output()
		if want := fmt.Sprintf("%d:%d\n", uid, uid); err != nil || string(out) != want {
			t.Errorf("%s belongs to %s, want %s", name, out, want)
		}
	}
}

// A person who may only run vpn as root must not get other files written by it.
func TestRootIsNotLedElsewhereByLinks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const uid = 12345
	victim := t.TempDir()
	precious := filepath.Join(victim, "profile.json")
	if err := os.WriteFile(precious, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, prepare := range map[string]func(home string) error{
		"the folder is a link to root's": func(home string) error {
			if err := os.MkdirAll(filepath.Join(home, ".config"), 0o700); err != nil {
				return err
			}
			return os.Symlink(victim, filepath.Join(home, ".config/vpnd"))
		},
		"its parent is a link to root's": func(home string) error { return os.Symlink(victim, filepath.Join(home, ".config")) },
		"the file is a link": func(home string) error {
			if err := os.MkdirAll(filepath.Join(home, ".config/vpnd"), 0o700); err != nil {
				return err
			}
			return os.Symlink(precious, filepath.Join(home, ".config/vpnd/profile.json"))
		},
		"the new file is a link": func(home string) error {
			if err := os.MkdirAll(filepath.Join(home, ".config/vpnd"), 0o700); err != nil {
				return err
			}
			return os.Symlink(precious, filepath.Join(home, ".config/vpnd/.profile.json.new"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			if err := prepare(home); err != nil {
				t.Fatal(err)
			}
			for _, d := range []string{home, filepath.Join(home, ".config"), filepath.Join(home, ".config/vpnd")} {
				_ = os.Lchown(d, uid, uid)
			}
			s := profile.New(profile.Location{Base: home, Dir: ".config/vpnd", UID: uid, GID: uid})
			_ = s.Update(t.Context(), func(p *profile.Profile, _ func() error) error { signIn(p); return nil })
			b, err := os.ReadFile(precious)
			if err != nil || string(b) != "precious" {
				t.Errorf("the file was changed to %q, %v", b, err)
			}
			entries, _ := os.ReadDir(victim)
			if len(entries) != 1 {
				t.Errorf("files were made in root's folder: %v", entries)
			}
		})
	}
}

func TestADamagedFileIsNamedAndKept(t *testing.T) {
	for name, content := range map[string]string{
		"empty":    "",
		"cut off":  `{"version":1,"tokens":{"refresh":"sec`,
		"no form":  `{}`,
		"newer":    `{"version":99}`,
		"lane":     `{"version":1,"lane":"x"}`,
		"key":      `{"version":1,"wireguard_private_key":"c2VjcmV0"}`,
		"too long": `{"version":1,"x":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s, file := store(t)
			update(t, s, signIn)
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, loadErr := s.Load()
			updateErr := s.Update(t.Context(), func(*profile.Profile, func() error) error { return nil })
			for _, err := range []error{loadErr, updateErr} {
				if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), file) || !strings.Contains(fault.From(err).Hint, "vpn login") {
					t.Errorf("got %v, hint %q", err, fault.From(err).Hint)
				}
				if strings.Contains(err.Error(), "c2VjcmV0") || strings.Contains(err.Error(), "sec\"") {
					t.Errorf("the error quotes the content: %v", err)
				}
			}
			if b, err := os.ReadFile(file); err != nil || string(b) != content {
				t.Error("the damaged file was overwritten")
			}
		})
	}
}

func TestAFailedUpdateChangesNothing(t *testing.T) {
	s, _ := store(t)
	update(t, s, signIn)
	err := s.Update(t.Context(), func(p *profile.Profile, _ func() error) error {
		p.Tokens = profile.Tokens{}
		return errors.New("no")
	})
	p, _ := s.Load()
	if err == nil || !p.SignedIn() {
		t.Errorf("got %v, signed in %v", err, p.SignedIn())
	}
	// What was saved on the way stays.
	_ = s.Update(t.Context(), func(p *profile.Profile, save func() error) error {
		p.Tokens.RenewalSent = true
		if err := save(); err != nil {
			t.Error(err)
		}
		return errors.New("no")
	})
	if p, _ := s.Load(); !p.Tokens.RenewalSent {
		t.Error("what was saved on the way is lost")
	}
}

const processes, rounds = 4, 25

// TestWriter is a process of TestProcessesTakeTurns.
func TestWriter(t *testing.T) {
	base := os.Getenv("PROFILE_TEST_WRITER")
	if base == "" {
		t.Skip("part of TestProcessesTakeTurns")
	}
	s := profile.New(profile.Location{Base: base, Dir: "vpnd", UID: os.Geteuid(), GID: os.Getegid()})
	for range rounds {
		update(t, s, func(p *profile.Profile) {
			n, _ := strconv.Atoi(p.Device.Name)
			p.Device.Name = strconv.Itoa(n + 1)
		})
		if _, err := s.Load(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProcessesTakeTurns(t *testing.T) {
	base := t.TempDir()
	var cmds []*exec.Cmd
	for range processes {
		c := exec.Command(os.Args[0], "-test.run=^TestWriter$")
		c.Env = append(os.Environ(), "PROFILE_TEST_WRITER="+base)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, c)
	}
	for _, c := range cmds {
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
	p, err := profile.New(profile.Location{Base: base, Dir: "vpnd", UID: os.Geteuid(), GID: os.Getegid()}).Load()
	if want := strconv.Itoa(processes * rounds); err != nil || p.Device.Name != want {
		t.Errorf("counted %s, %v, want %s: an update was lost", p.Device.Name, err, want)
	}
}

func TestALockThatIsHeldIsNotWaitedForForEver(t *testing.T) {
	s, _ := store(t)
	_ = s.Update(t.Context(), func(*profile.Profile, func() error) error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		err := s.Update(ctx, func(*profile.Profile, func() error) error { return nil })
		if !errors.Is(err, fault.Timeout) || !strings.Contains(err.Error(), "another vpn command") {
			t.Errorf("got %v", err)
		}
		return nil
	})
}

func TestTheKeyBelongsToTheDevice(t *testing.T) {
	var p profile.Profile
	signIn(&p)
	if err := p.EnsureKey(); err != nil {
		t.Fatal(err)
	}
	first := p.Key
	signIn(&p)
	if err := p.EnsureKey(); err != nil || !p.Key.Equal(first) {
		t.Errorf("the same device got another key, %v", err)
	}
	p.Device.ID = "dev_2"
	if err := p.EnsureKey(); err != nil || p.Key.Equal(first) {
		t.Errorf("another device kept the key, %v", err)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	var p profile.Profile
	signIn(&p)
	if err := p.EnsureKey(); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprintf("%v", p), fmt.Sprintf("%+v", p), fmt.Sprintf("%#v", p)} {
		if strings.Contains(s, "secret") && !strings.Contains(s, "secret.Text") || strings.Contains(s, p.Key.Reveal()) || strings.Contains(s, "refresh-secret") {
			t.Errorf("a secret is in %s", s)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"server":{"host":"h","port":1,"pin":"p"},"tokens":{"refresh":"r"}}`))
	f.Add([]byte(`{"version":1,"session":{"public_key":"x"},"addresses":{"h":["::1"]}}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "profile.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := profile.New(profile.Location{Base: filepath.Dir(dir), Dir: filepath.Base(dir), UID: os.Geteuid(), GID: os.Getegid()})
		p, err := s.Load()
		if err != nil {
			return
		}
		// What can be read can be written and read again.
		if err := s.Update(t.Context(), func(*profile.Profile, func() error) error { return nil }); err != nil {
			t.Fatalf("%v of %q", err, b)
		}
		q, err := s.Load()
		if err != nil || !p.Tokens.Refresh.Equal(q.Tokens.Refresh) || p.Server != q.Server {
			t.Fatalf("got %+v, %v, want %+v", q, err, p)
		}
	})
}
