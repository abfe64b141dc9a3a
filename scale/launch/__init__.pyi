from .checks import (
    check as check,
    check_folder as check_folder,
    check_prompts as check_prompts,
    other_settings as other_settings,
)
from .configuration import (
    CONF as CONF,
    FOLLOWS as FOLLOWS,
    NO_DUAL_CLIP as NO_DUAL_CLIP,
    compose as compose,
    default_cluster as default_cluster,
    joins_ray as joins_ray,
    names as names,
)
from .estimate_report import (
    describe as describe,
)
from .experiments import (
    EXPERIMENTS as EXPERIMENTS,
    Cell as Cell,
    Experiment as Experiment,
    get_cell as get_cell,
    get_experiment as get_experiment,
    run_name as run_name,
)
from .limits import (
    Limits as Limits,
    limits_of as limits_of,
)
from .refused import (
    names_modules as names_modules,
    require_name as require_name,
    require_settings as require_settings,
)
from .start import (
    HANDED_ON as HANDED_ON,
    cpu_environment as cpu_environment,
    environment as environment,
    hand_on as hand_on,
    name_vllm as name_vllm,
    train as train,
)
