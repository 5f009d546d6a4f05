package cli

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"vpnd/pkg/fault"
	"vpnd/pkg/secret"
)

// passwordFlags say where a new password comes from; never from an argument,
// which every process of the machine can read.
type passwordFlags struct {
	stdin    bool
	file     string
	generate bool
}

func (p *passwordFlags) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&p.stdin, "password-stdin", false, "read the password from standard input")
	cmd.Flags().StringVar(&p.file, "password-file", "", "read the password from this file")
	cmd.Flags().BoolVar(&p.generate, "generate-password", false, "make a password and print it")
	cmd.MarkFlagsMutuallyExclusive("password-stdin", "password-file", "generate-password")
	_ = cmd.MarkFlagFilename("password-file")
}

// maxPassword is more than vpnd takes; it bounds what is read.
const maxPassword = 4096

// password gets the new password of name.
func (f *factory) password(p passwordFlags, name string) (secret.Text, error) {
	switch {
	case p.generate:
		return generatePassword()
	case p.stdin:
		line, err := bufio.NewReader(io.LimitReader(f.in, maxPassword)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return secret.Text{}, fmt.Errorf("read password: %w", err)
		}
		return notEmpty(strings.TrimRight(line, "\r\n"), "standard input")
	case p.file != "":
		data, err := readPrivate(p.file)
		if err != nil {
			return secret.Text{}, err
		}
		return notEmpty(strings.TrimRight(data, "\r\n"), p.file)
	}
	if !f.inTTY || !f.errTTY {
		return secret.Text{}, fault.New(fault.Invalid, "no password was given").
			WithHint("use --password-stdin, --password-file FILE or --generate-password")
	}
	first, err := f.promptSecret("Password for " + name + ": ")
	if err != nil {
		return secret.Text{}, err
	}
	again, err := f.promptSecret("The same again: ")
	if err != nil {
		return secret.Text{}, err
	}
	if !first.Equal(again) {
		return secret.Text{}, fault.New(fault.Invalid, "the two passwords differ; nothing was changed")
	}
	return notEmpty(first.Reveal(), "the terminal")
}

func (f *factory) promptSecret(prompt string) (secret.Text, error) {
	fmt.Fprint(f.err, cleanLines(prompt))
	line, err := f.secret()
	fmt.Fprintln(f.err)
	if err != nil {
		return secret.Text{}, fault.Wrap(err, fault.Canceled, "no password was typed; nothing was changed")
	}
	return secret.New(string(line)), nil
}

func notEmpty(s, where string) (secret.Text, error) {
	if s == "" {
		return secret.Text{}, fault.New(fault.Invalid, "the password from %s is empty", where)
	}
	return secret.New(s), nil
}

func readPrivate(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fault.Wrap(err, fault.Invalid, "cannot read the password: %v", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxPassword))
	if err != nil {
		return "", fault.Wrap(err, fault.Invalid, "cannot read the password: %v", err)
	}
	return string(data), nil
}

// generatePassword makes four groups of five characters that are told apart
// easily: 20 of 31, 99 bits.
func generatePassword() (secret.Text, error) {
	const alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
	var b strings.Builder
	for i := range 20 {
		if i > 0 && i%5 == 0 {
			b.WriteByte('-')
		}
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			return secret.Text{}, fmt.Errorf("make password: %w", err)
		}
		b.WriteByte(alphabet[n.Int64()])
	}
	return secret.New(b.String()), nil
}
