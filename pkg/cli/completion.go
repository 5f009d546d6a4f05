package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func shells() []string { return []string{"bash", "zsh", "fish", "powershell"} }

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print the completion script of a shell",
		Long: `Print a script that makes a shell complete commands, flags and names.

  bash  source <(vpnctl completion bash)
  zsh   vpnctl completion zsh > "${fpath[1]}/_vpnctl"
  fish  vpnctl completion fish > ~/.config/fish/completions/vpnctl.fish`,
		ValidArgs: shells(),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(shells(), args[0]) {
				return usageError(cmd, "name one shell: %s", strings.Join(shells(), ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runCompletion(cmd.Root(), args[0]) },
	}
}

func runCompletion(root *cobra.Command, shell string) error {
	out := root.OutOrStdout()
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(out, true)
	case "zsh":
		return root.GenZshCompletion(out)
	case "fish":
		return root.GenFishCompletion(out, true)
	}
	return root.GenPowerShellCompletionWithDesc(out)
}
