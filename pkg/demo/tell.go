//go:build linux

package demo

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"vpnd/pkg/lab"
)

func (s *story) title(text string) {
	s.scene++
	line := fmt.Sprintf("%d. %s", s.scene, text)
	if s.Color {
		line = "\x1b[1;36m" + line + "\x1b[0m"
	}
	fmt.Fprintf(s.Out, "\n%s\n\n", line)
}

func (s *story) say(format string, args ...any) {
	fmt.Fprintf(s.Out, "  "+format+"\n", args...)
}

func (s *story) prompt(machine, command string) {
	line := machine + "$ " + command
	if s.Color {
		line = "\x1b[1m" + line + "\x1b[0m"
	}
	fmt.Fprintf(s.Out, "  %s\n", line)
}

// run types a command on a machine and shows what it prints.
func (s *story) run(machine, stdin, program string, args ...string) error {
	ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
	defer cancel()
	words := make([]string, len(args))
	for i, a := range args {
		if words[i] = a; strings.ContainsAny(a, " '\"$") {
			words[i] = "'" + a + "'"
		}
	}
	line := strings.Join(append([]string{program}, words...), " ")
	if stdin != "" {
		line += " < password"
	}
	s.prompt(machine, line)
	cmd := s.CommandContext(ctx, machine, program, args...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin + "\n")
	}
	out, err := s.onTerminal(cmd)
	out = strings.ReplaceAll(out, "\r\x1b[2K", "\n") // what overwrote a line has one of its own
	for line := range strings.Lines(out) {
		fmt.Fprintln(s.Out, strings.TrimRight("  "+line, " \r\n"))
	}
	fmt.Fprintln(s.Out)
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	return nil
}

// onTerminal runs a command with a terminal of 100 columns for its output.
func (s *story) onTerminal(cmd *lab.Cmd) (string, error) {
	master, terminal, err := openPTY(100, 40)
	if err != nil {
		return "", err
	}
	defer master.Close()
	if !s.Color {
		cmd.Env = append(cmd.Env, "NO_COLOR=1")
	}
	cmd.Env = append(cmd.Env, "TERM=xterm-256color")
	cmd.Stdout, cmd.Stderr = terminal, terminal
	if err := cmd.Start(); err != nil {
		_ = terminal.Close()
		return "", err
	}
	_ = terminal.Close() // the command has its own
	read := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(master) // EIO when the last writer has gone
		read <- string(b)
	}()
	err = cmd.Wait()
	select {
	case out := <-read:
		return out, err
	case <-time.After(2 * time.Second): // a background process kept the terminal
		_ = master.Close()
		return <-read, err
	}
}

// page is the answer to a request.
type page struct {
	status int
	body   string
}

// fetch fetches a page on a machine; host, unless empty, is the name that the
// address in the URL was found by.
func (s *story) fetch(machine, url, host string) (page, error) {
	ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return page{}, err
	}
	req.Host = host
	c := s.Machine(machine).HTTPClient()
	defer c.CloseIdleConnections()
	res, err := c.Do(req)
	if err != nil {
		return page{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return page{res.StatusCode, strings.TrimSpace(string(body))}, err
}

// seenBy asks the page at an address whom it sees.
func (s *story) seenBy(machine string, target netip.Addr) (string, error) {
	url := "http://" + netip.AddrPortFrom(target, 80).String() + "/ip"
	s.prompt(machine, "get "+url)
	p, err := s.fetch(machine, url, "")
	if err != nil {
		return "", err
	}
	if p.status != http.StatusOK {
		return "", fmt.Errorf("%s answered %d: %s", url, p.status, p.body)
	}
	s.say("%s", p.body)
	return p.body, nil
}

func (s *story) ping(machine string) (*lab.Pinger, error) {
	return s.Machine(machine).Ping(s.ctx, lab.TargetV4, 20*time.Millisecond)
}
