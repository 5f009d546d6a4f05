package client

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"vpnd/pkg/fault"
	"vpnd/pkg/secret"
)

// maxPassword bounds what is read as a password, in bytes.
const maxPassword = 4096

// ask asks a question on the terminal and gives the line typed.
func (f *factory) ask(ctx context.Context, question string) (string, error) {
	fmt.Fprint(f.err, question)
	return interruptible(ctx, func() (string, error) { return readLine(f.in) })
}

// askPassword asks without echo. An interrupt leaves the terminal as it was.
func (f *factory) askPassword(ctx context.Context, question string) (secret.Text, error) {
	fd := int(f.in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return secret.Text{}, fmt.Errorf("read the terminal's state: %w", err)
	}
	fmt.Fprint(f.err, question)
	defer fmt.Fprintln(f.err)
	pw, err := interruptible(ctx, func() (string, error) {
		b, err := term.ReadPassword(fd)
		return string(b), err
	})
	if ctx.Err() != nil {
		_ = term.Restore(fd, before) // the reader never gets to it
	}
	return secret.New(pw), err
}

// interruptible waits for a read that nothing can end; the process will.
func interruptible(ctx context.Context, read func() (string, error)) (string, error) {
	type result struct {
		s   string
		err error
	}
	done := make(chan result, 1)
	go func() {
		s, err := read()
		done <- result{s, err}
	}()
	select {
	case r := <-done:
		return r.s, r.err
	case <-ctx.Done():
		return "", fault.From(ctx.Err())
	}
}

// readLine reads byte by byte: what follows the line is for the next reader.
func readLine(r io.Reader) (string, error) {
	var line []byte
	var one [1]byte
	for len(line) < maxPassword {
		n, err := r.Read(one[:])
		if n == 1 {
			if one[0] == '\n' {
				break
			}
			line = append(line, one[0])
		}
		if err == io.EOF && len(line) > 0 {
			break
		}
		if err != nil {
			return "", fault.Wrap(err, fault.Invalid, "there is nothing to read on standard input")
		}
	}
	return strings.TrimSuffix(string(line), "\r"), nil
}

// readPasswordFile reads the first line of a file.
func readPasswordFile(path string) (secret.Text, error) {
	file, err := os.Open(path)
	if err != nil {
		return secret.Text{}, fault.Wrap(err, fault.Invalid, "cannot read the password file")
	}
	defer file.Close()
	s, err := readLine(file)
	if err != nil {
		return secret.Text{}, fault.New(fault.Invalid, "the password file %s is empty", path)
	}
	return secret.New(s), nil
}
