# Completion of weirctl for bash: options, commands, and the names of backends as the running Weir knows them.

_weirctl() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command= word i where=()

    COMPREPLY=()
    if [[ $previous == --redis || $previous == --farm ]]; then
        return
    fi
    if [[ $previous == --socket || $previous == --ca || $previous == = ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
        --socket | --redis | --farm | --ca)
            [[ ${COMP_WORDS[i + 1]} == = ]] && ((i++))
            where+=("$word" "${COMP_WORDS[++i]}")
            ;;
        -*) ;;
        *)
            if [[ -z $command ]]; then
                command=$word
            else
                command=$command-done
            fi
            ;;
        esac
    done
    case $command in
    "") mapfile -t COMPREPLY < <(compgen -W "--socket --redis --farm --ca --json --help --version status backends sessions instances top drain maint ready weight reload version names" -- "$current") ;;
    drain | maint | ready | weight)
        # Names are compared here and not by compgen -W, which would expand what is in them.
        while IFS= read -r word; do
            [[ $word == "$current"* ]] && COMPREPLY+=("$(printf '%q' "$word")")
        done < <("${COMP_WORDS[0]}" "${where[@]}" names 2>/dev/null)
        ;;
    weight-done) [[ default == "$current"* ]] && COMPREPLY=(default) ;;
    esac
}
complete -F _weirctl weirctl
