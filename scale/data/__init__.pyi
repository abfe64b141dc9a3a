from .datasets import (
    DATASETS as DATASETS,
    Dataset as Dataset,
)
from .text_keys import (
    TEMPLATES as TEMPLATES,
    Template as Template,
    get_template as get_template,
    language as language,
    normalize as normalize,
    prompt_key as prompt_key,
    strip_template as strip_template,
)
