# Completion of weirctl for bash: options, commands, and the names of backends as the running Weir knows them.

# Bash parts words also at : = and @, of which URLs and the names of backends have some. `words` and `at`: as the shell
# will see them, up to the cursor.
_weirctl_words() {
    local line=$COMP_LINE i

    words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        if [[ $i == 0 || $line == [[:blank:]]* ]]; then
            words+=("")
        fi
        line=${line#"${line%%[![:blank:]]*}"}
        words[-1]+=${COMP_WORDS[i]}
        line=${line#"${COMP_WORDS[i]}"}
    done
    at=$((${#words[@]} - 1))
}

# Answers: what begins as `current` does. Bash puts them in place of what stands behind the last of its marks only, and
# takes an @ with it.
_weirctl_answer() {
    local kept=${current%"${current##*["$COMP_WORDBREAKS"]}"} word

    kept=${kept%@}
    for word; do
        if [[ $word == "$current"* ]]; then
            COMPREPLY+=("$(printf '%q' "${word#"$kept"}")")
        fi
    done
}

_weirctl_files() {
    local files

    mapfile -t files < <(compgen -f -- "$current")
    _weirctl_answer "${files[@]}"
}

_weirctl() {
    local words at current previous command='' word i where=() names

    COMPREPLY=()
    _weirctl_words
    current=${words[at]} previous=${words[at - 1]}
    case $current in
    --socket=* | --ca=*)
        current=${current#*=}
        _weirctl_files
        return
        ;;
    --redis=* | --farm=*) return ;;
    esac
    case $previous in
    --redis | --farm) return ;;
    --socket | --ca)
        _weirctl_files
        return
        ;;
    esac
    for ((i = 1; i < at; i++)); do
        word=${words[i]}
        case $word in
        --socket | --redis | --farm | --ca) where+=("$word" "${words[++i]}") ;;
        --socket=* | --redis=* | --farm=* | --ca=*) where+=("$word") ;;
        -*) ;;
        *) command=$command${command:+-}$word ;;
        esac
    done
    case $command in
    "") _weirctl_answer --socket --redis --farm --ca --json --help --version status backends sessions instances top drain maint ready \
        weight reload version names ;;
    drain | maint | ready | weight)
        mapfile -t names < <("${words[0]}" "${where[@]}" names 2>/dev/null)
        _weirctl_answer "${names[@]}"
        ;;
    weight-*-*) ;;
    weight-*) _weirctl_answer default ;;
    esac
}
complete -F _weirctl weirctl
